import { ActionIcon, Button, Checkbox, CopyButton, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import { useState } from "react";
import * as identity from "../../api/identity";
import { fullTime } from "../../lib/format";
import { useMe } from "../../shell/me";
import { Age } from "../../ui/Age";
import { fieldError, formError } from "../../ui/fields";
import { showProblem } from "../../ui/notify";
import { Failure, RowSkeletons } from "../../ui/States";
import { Section } from "./Section";
import classes from "./Section.module.css";

/** A whole system, one permission, or all: what of it this person has to give. */
function scopesOf(permissions: string[]): { value: string; label: string }[] {
  return [
    { value: "feed", label: "All of feed" },
    { value: "identity", label: "All of identity" },
    ...permissions
      .filter((permission) => permission !== "*")
      .map((permission) => ({ value: permission, label: permission })),
    { value: "*", label: "Everything that you may do" },
  ];
}

export function KeysSection() {
  const client = useQueryClient();
  const me = useMe();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>([]);
  const keys = useQuery({ queryKey: ["keys"], queryFn: ({ signal }) => identity.keys(signal), staleTime: 0 });
  const create = useMutation({
    mutationFn: () => identity.createKey({ name: name.trim(), scopes }),
    onSuccess: () => {
      setName("");
      setScopes([]);
      void client.invalidateQueries({ queryKey: ["keys"] });
    },
  });
  const remove = useMutation({
    mutationFn: (id: string) => identity.deleteKey(id),
    onSuccess: (_, id) => {
      if (create.data?.id === id) create.reset();
      void client.invalidateQueries({ queryKey: ["keys"] });
    },
    onError: showProblem,
  });
  return (
    <>
      <Section
        title="A new key"
        text="For programs that act for you. Its scopes are the permissions it may use; it never has more than you have."
      >
        <form
          style={{ display: "grid", gap: 14, maxWidth: 460 }}
          onSubmit={(event) => {
            event.preventDefault();
            create.mutate();
          }}
        >
          <TextInput
            label="Name"
            placeholder="What it is for"
            autoComplete="off"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            error={fieldError(create.error, "name") ?? formError(create.error, ["name", "scopes"])}
          />
          <Checkbox.Group
            label="Scopes"
            description="What it may be used for."
            value={scopes}
            onChange={setScopes}
            error={fieldError(create.error, "scopes")}
          >
            <div className={classes.scopes}>
              {scopesOf(me?.permissions ?? []).map((scope) => (
                <Checkbox key={scope.value} value={scope.value} label={scope.label} />
              ))}
            </div>
          </Checkbox.Group>
          <div>
            <Button type="submit" loading={create.isPending} disabled={name.trim() === "" || scopes.length === 0}>
              Make the key
            </Button>
          </div>
        </form>
        {create.data !== undefined && (
          <div role="status">
            <p style={{ margin: "0 0 6px" }}>
              <strong>Copy it now.</strong> It is shown this once; only its hash is kept.
            </p>
            <div className={classes.secret}>
              <span style={{ flex: 1 }}>{create.data.key}</span>
              <CopyButton value={create.data.key}>
                {({ copied, copy }) => (
                  <ActionIcon variant="subtle" color="gray" c="var(--text)" aria-label={copied ? "Copied" : "Copy the key"} onClick={copy}>
                    {copied ? <IconCheck size={17} /> : <IconCopy size={17} />}
                  </ActionIcon>
                )}
              </CopyButton>
            </div>
          </div>
        )}
      </Section>
      <Section title="Your keys">
        {keys.isPending && <RowSkeletons count={2} height={56} />}
        {keys.isError && keys.data === undefined && <Failure error={keys.error} retry={() => void keys.refetch()} />}
        {keys.data?.items.length === 0 && <span className={classes.detail}>None yet.</span>}
        {keys.data?.items.map((key) => (
          <div key={key.id} className={classes.item}>
            <div className={classes.itemText}>
              <div className={classes.itemTitle}>
                {key.name}
                <code className={classes.detail}>{key.prefix}…</code>
              </div>
              <div className={classes.detail}>
                {key.scopes.includes("*") ? "everything you may do" : key.scopes.join(", ")} · made {fullTime(key.created)}
                {key.lastUsed ? (
                  <>
                    {" "}
                    · used <Age time={key.lastUsed} />
                  </>
                ) : (
                  " · never used"
                )}
              </div>
            </div>
            <Button
              size="xs"
              variant="default"
              loading={remove.isPending && remove.variables === key.id}
              onClick={() => remove.mutate(key.id)}
              aria-label={`Delete the key ${key.name}`}
            >
              Delete
            </Button>
          </div>
        ))}
      </Section>
    </>
  );
}
