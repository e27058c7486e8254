import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as identity from "../../api/identity";
import { endSession } from "../../api/session";
import type { Session } from "../../api/types";
import { fullTime } from "../../lib/format";
import { Age } from "../../ui/Age";
import { fieldError, formError } from "../../ui/fields";
import { Password } from "../../ui/Password";
import { showDone, showProblem } from "../../ui/notify";
import { Failure, RowSkeletons } from "../../ui/States";
import { Section } from "./Section";
import classes from "./Section.module.css";

export function SecuritySection() {
  return (
    <>
      <PasswordForm />
      <Sessions />
    </>
  );
}

function PasswordForm() {
  const client = useQueryClient();
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const change = useMutation({
    mutationFn: () => identity.changePassword({ current, new: next }),
    onSuccess: () => {
      setCurrent("");
      setNext("");
      void client.invalidateQueries({ queryKey: ["sessions"] });
      showDone("The password is changed; all other sessions have ended.");
    },
  });
  return (
    <Section title="Password" text="Changing it ends all your other sessions.">
      <form
        style={{ display: "grid", gap: 14, maxWidth: 360 }}
        onSubmit={(event) => {
          event.preventDefault();
          change.mutate();
        }}
      >
        <Password
          label="Current password"
          autoComplete="current-password"
          value={current}
          onChange={(event) => setCurrent(event.currentTarget.value)}
          error={fieldError(change.error, "current") ?? formError(change.error, ["current", "new", "password"])}
          reveals="the current password"
        />
        <Password
          label="New password"
          autoComplete="new-password"
          value={next}
          onChange={(event) => setNext(event.currentTarget.value)}
          error={fieldError(change.error, "new") ?? fieldError(change.error, "password")}
          reveals="the new password"
        />
        <div>
          <Button type="submit" loading={change.isPending} disabled={current === "" || next === ""}>
            Change the password
          </Button>
        </div>
      </form>
    </Section>
  );
}

/** `Firefox on Linux` rather than a line of version numbers. */
function device(userAgent: string | undefined | null): string {
  if (!userAgent) return "Unknown device";
  const browser = [
    ["Edg/", "Edge"],
    ["Firefox/", "Firefox"],
    ["Chrome/", "Chrome"],
    ["Safari/", "Safari"],
    ["curl/", "curl"],
  ].find(([mark]) => userAgent.includes(mark ?? ""))?.[1];
  const system = [
    ["Android", "Android"],
    ["iPhone", "iPhone"],
    ["iPad", "iPad"],
    ["Windows", "Windows"],
    ["Mac OS X", "macOS"],
    ["Linux", "Linux"],
  ].find(([mark]) => userAgent.includes(mark ?? ""))?.[1];
  if (browser === undefined) return userAgent.slice(0, 60);
  return system === undefined ? browser : `${browser} on ${system}`;
}

function Sessions() {
  const client = useQueryClient();
  const sessions = useQuery({
    queryKey: ["sessions"],
    queryFn: ({ signal }) => identity.sessions(signal),
    staleTime: 0,
  });
  const revoke = useMutation({
    mutationFn: (session: Session) => identity.revokeSession(session.id),
    onSuccess: (_, session) => {
      if (session.current) endSession();
      else void client.invalidateQueries({ queryKey: ["sessions"] });
    },
    onError: showProblem,
  });
  const everywhere = useMutation({
    mutationFn: identity.logOutEverywhere,
    onSuccess: endSession,
    onError: showProblem,
  });
  return (
    <Section title="Sessions" text="Where you are signed in. Ending one takes effect at once.">
      {sessions.isPending && <RowSkeletons count={2} height={56} />}
      {sessions.isError && sessions.data === undefined && (
        <Failure error={sessions.error} retry={() => void sessions.refetch()} />
      )}
      {sessions.data?.items.map((session) => (
        <div key={session.id} className={classes.item}>
          <div className={classes.itemText}>
            <div className={classes.itemTitle}>
              {device(session.userAgent)}
              {session.current && <span className={classes.chip}>This one</span>}
            </div>
            <div className={classes.detail}>
              {session.address ? `${session.address} · ` : ""}used <Age time={session.lastUsed} /> · since{" "}
              {fullTime(session.created)}
            </div>
          </div>
          <Button
            size="xs"
            variant="default"
            loading={revoke.isPending && revoke.variables.id === session.id}
            onClick={() => revoke.mutate(session)}
            aria-label={`End the session of ${device(session.userAgent)}`}
          >
            End
          </Button>
        </div>
      ))}
      <div>
        <Button variant="default" loading={everywhere.isPending} onClick={() => everywhere.mutate()}>
          Sign out everywhere
        </Button>
      </div>
    </Section>
  );
}
