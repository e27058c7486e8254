import { Button, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as identity from "../../api/identity";
import { renameSession } from "../../api/session";
import type { Me } from "../../api/types";
import { useMe } from "../../shell/me";
import { fieldError, formError } from "../../ui/fields";
import { showDone } from "../../ui/notify";
import { RowSkeletons } from "../../ui/States";
import { Section } from "./Section";

export function ProfileSection() {
  const me = useMe();
  return me === undefined ? <RowSkeletons count={3} height={60} /> : <ProfileForm key={me.id} me={me} />;
}

function ProfileForm({ me }: { me: Me }) {
  const client = useQueryClient();
  const [name, setName] = useState(me.name);
  const [bio, setBio] = useState(me.bio);
  const save = useMutation({
    mutationFn: () => identity.updateMe({ name: name.trim(), bio: bio.trim() }),
    onSuccess: (account) => {
      renameSession(account.name);
      void client.invalidateQueries({ queryKey: ["me"] });
      void client.invalidateQueries({ queryKey: ["profile", me.handle] });
      showDone("Your profile is saved.");
    },
  });
  const changed = name.trim() !== me.name || bio.trim() !== me.bio;
  return (
    <Section title="Profile" text={`You are @${me.handle}. The name and the words about you can be seen by everybody.`}>
      <form
        style={{ display: "grid", gap: 14, maxWidth: 460 }}
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <TextInput
          label="Name"
          autoComplete="name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={fieldError(save.error, "name") ?? formError(save.error, ["name", "bio"])}
        />
        <Textarea
          label="About you"
          autosize
          minRows={3}
          value={bio}
          onChange={(event) => setBio(event.currentTarget.value)}
          error={fieldError(save.error, "bio")}
        />
        <div>
          <Button type="submit" loading={save.isPending} disabled={!changed}>
            Save
          </Button>
        </div>
      </form>
    </Section>
  );
}
