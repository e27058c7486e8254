import { Button, Group, Modal, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import * as identity from "../../api/identity";
import { endSession } from "../../api/session";
import { useAccount } from "../../lib/hooks";
import { fieldError, formError } from "../../ui/fields";
import { Password } from "../../ui/Password";
import { showProblem } from "../../ui/notify";
import { Section } from "./Section";

export function DataSection() {
  const { handle } = useAccount();
  const [erasing, setErasing] = useState(false);
  const download = useMutation({
    mutationFn: identity.exportMe,
    onSuccess: (blob) => {
      const url = URL.createObjectURL(blob);
      const link = document.createElement("a");
      link.href = url;
      link.download = `holon-${handle}.json`;
      link.click();
      URL.revokeObjectURL(url);
    },
    onError: showProblem,
  });
  return (
    <>
      <Section title="Export" text="All that any system keeps about you, in one JSON file.">
        <div>
          <Button variant="default" loading={download.isPending} onClick={() => download.mutate()}>
            Download your data
          </Button>
        </div>
      </Section>
      <Section
        title="Erase the account"
        text="Your posts, likes, follows and everything else about you are erased in every system. This can't be undone."
      >
        <div>
          <Button color="red.9" variant="outline" c="var(--danger)" bd="1px solid var(--danger)" onClick={() => setErasing(true)}>
            Erase the account…
          </Button>
        </div>
      </Section>
      {erasing && <EraseDialog handle={handle} close={() => setErasing(false)} />}
    </>
  );
}

function EraseDialog({ handle, close }: { handle: string; close: () => void }) {
  const [typed, setTyped] = useState("");
  const [password, setPassword] = useState("");
  const erase = useMutation({
    mutationFn: () => identity.eraseMe(password === "" ? undefined : password),
    onSuccess: endSession,
  });
  return (
    <Modal opened onClose={close} title="Erase the account" centered closeButtonProps={{ "aria-label": "Close" }}>
      <form
        style={{ display: "grid", gap: 14 }}
        onSubmit={(event) => {
          event.preventDefault();
          erase.mutate();
        }}
      >
        <span>All your sessions end at once, and the rest of you follows within moments.</span>
        <TextInput
          data-autofocus
          label={`Type ${handle} to confirm`}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
        />
        <Password
          label="Password"
          autoComplete="current-password"
          value={password}
          onChange={(event) => setPassword(event.currentTarget.value)}
          error={fieldError(erase.error, "password") ?? formError(erase.error, ["password"])}
          reveals="the password"
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={close}>
            Keep it
          </Button>
          <Button type="submit" color="red.9" loading={erase.isPending} disabled={typed !== handle}>
            Erase for ever
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
