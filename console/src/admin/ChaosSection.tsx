import { Button, Group, Modal } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { IconShieldCheck } from "@tabler/icons-react";
import { useState } from "react";
import * as admin from "../api/admin";
import type { ChaosAction, ChaosKind, ChaosPart } from "../api/types";
import { usePermission } from "../shell/me";
import { showDone, showProblem } from "../ui/notify";
import { Panel, TableFrame } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";
import { Away } from "./Away";
import { useChaos } from "./useChaos";

const kinds: { kind: ChaosKind; title: string; text: string }[] = [
  {
    kind: "node",
    title: "Nodes",
    text: "Others take over what a dead node had. One that was frozen or cut off must not write under its old leases when it is back.",
  },
  {
    kind: "postgres",
    title: "PostgreSQL",
    text: "Commits are acknowledged when the standby has them. Without a standby they wait for some seconds, then the primary goes on alone.",
  },
  { kind: "nats", title: "NATS", text: "Each event is kept three times; two servers of three are enough." },
  { kind: "redis", title: "Redis", text: "A replica takes a lost primary's place within seconds. Nothing is kept here that cannot be made again." },
  { kind: "s3", title: "S3", text: "Blobs cannot be read or written without it; everything else goes on." },
];

const labels: Record<ChaosAction, string> = {
  kill: "Kill",
  start: "Start",
  freeze: "Freeze",
  thaw: "Thaw",
  cut: "Cut off",
  slow: "Slow down",
  heal: "Heal",
  failOver: "Fail over",
};

/** What makes nothing worse is done without asking. */
const harmless = new Set<ChaosAction>(["start", "thaw", "heal"]);

interface Intent {
  part: ChaosPart;
  action: ChaosAction;
}

export default function ChaosSection() {
  const allowed = usePermission("admin.chaos") === true;
  const chaos = useChaos({ allowed, watching: true });
  const client = useQueryClient();
  const [intent, setIntent] = useState<Intent | null>(null);
  const tell = useMutation({
    mutationFn: ({ part, action }: Intent) => admin.tellChaos({ part: part.name, action }),
    onSuccess: (_, { part, action }) => {
      setIntent(null);
      showDone(`${part.name}: ${labels[action].toLowerCase()} is under way.`);
    },
    onError: showProblem,
    onSettled: () => client.invalidateQueries({ queryKey: ["chaos"] }),
  });
  const items = chaos.data?.items ?? [];

  if (chaos.isOff) {
    return (
      <Empty icon={IconShieldCheck} title="Nothing can be broken here">
        This node runs by itself. The nodes that <code>make cluster</code> starts can be killed, frozen and cut off from
        this page.
      </Empty>
    );
  }
  if (chaos.data === undefined) {
    return chaos.isError ? (
      <Failure error={chaos.error} retry={() => void chaos.refetch()} />
    ) : (
      <RowSkeletons count={6} height={64} />
    );
  }
  const ask = (part: ChaosPart, action: ChaosAction) =>
    harmless.has(action) ? tell.mutate({ part, action }) : setIntent({ part, action });
  const others = items.filter((part) => part.kind === "node" && !part.isSelf && part.state === "running");
  return (
    <>
      {chaos.isError && <Away error={chaos.error} addresses={others.map((part) => part.address)} />}
      {kinds.map(({ kind, title, text }) => {
        const parts = items.filter((part) => part.kind === kind);
        if (parts.length === 0) return null;
        return (
          <Panel key={kind} title={title} text={text}>
            <TableFrame label={title}>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>
                    <span className="visually-hidden">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {parts.map((part) => (
                  <tr key={part.name} data-testid="part" data-state={part.state}>
                    <td>
                      <div className={classes.system}>
                        <span className={`${classes.systemName} ${classes.oneLine}`}>
                          <span className={classes.light} data-state={lightOf(part)} aria-hidden="true" />
                          {part.name}
                        </span>
                        <span className={`${classes.summary} ${classes.mono}`}>{part.address}</span>
                        {part.isSelf && <span className={classes.summary}>serves this page</span>}
                      </div>
                    </td>
                    <td>
                      <Condition part={part} />
                    </td>
                    <td data-number>
                      <Group gap={6} justify="flex-end">
                        {part.actions.map((action) => (
                          <Button
                            key={action}
                            size="compact-xs"
                            variant="default"
                            disabled={typeof part.doing === "string" || tell.isPending}
                            onClick={() => ask(part, action)}
                            aria-label={`${labels[action]} ${part.name}`}
                          >
                            {labels[action]}
                          </Button>
                        ))}
                      </Group>
                    </td>
                  </tr>
                ))}
              </tbody>
            </TableFrame>
          </Panel>
        );
      })}
      {intent !== null && (
        <Confirmation
          intent={intent}
          busy={tell.isPending}
          close={() => setIntent(null)}
          confirm={() => tell.mutate(intent)}
        />
      )}
    </>
  );
}

function lightOf(part: ChaosPart): "alive" | "suspect" | "dead" {
  if (part.state === "stopped") return "dead";
  return part.state === "frozen" || part.reach !== "whole" || part.delayMs > 0 ? "suspect" : "alive";
}

function Condition({ part }: { part: ChaosPart }) {
  const more = [
    part.role,
    part.reach === "cutOff" ? "cut off" : part.reach === "partly" ? "cut off in part" : null,
    part.delayMs > 0 ? `${part.delayMs} ms slower` : null,
    typeof part.doing === "string" ? `${labels[part.doing].toLowerCase()} is under way` : null,
  ].filter((text) => typeof text === "string");
  return (
    <div className={classes.system}>
      <span className={part.state === "stopped" ? classes.bad : undefined}>{part.state}</span>
      {more.length > 0 && <span className={classes.summary}>{more.join(" · ")}</span>}
      {typeof part.failure === "string" && <span className={classes.bad}>{part.failure}</span>}
    </div>
  );
}

function Confirmation({
  intent,
  busy,
  close,
  confirm,
}: {
  intent: Intent;
  busy: boolean;
  close: () => void;
  confirm: () => void;
}) {
  const { part, action } = intent;
  return (
    <Modal
      opened
      onClose={close}
      title={`${labels[action]} ${part.name}?`}
      centered
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {consequence(part, action)}
      {part.isSelf && (
        <p className={classes.bad}>
          It is the node that serves this page: the page goes silent. Go on at another node.
        </p>
      )}
      <Group justify="flex-end" mt="lg" gap="xs">
        <Button variant="default" onClick={close} data-autofocus>
          Leave it
        </Button>
        <Button color="red.9" loading={busy} onClick={confirm}>
          {labels[action]}
        </Button>
      </Group>
    </Modal>
  );
}

function consequence(part: ChaosPart, action: ChaosAction): string {
  switch (action) {
    case "kill":
      return part.kind === "node"
        ? "Its process is killed (SIGKILL), as by a power cut: requests in hand fail, and nothing acknowledged may be lost. It stays down until you start it."
        : "Its process is killed (SIGKILL), as by a power cut. It stays down until you start it.";
    case "freeze":
      return "Its process is stopped (SIGSTOP): connections stay open and nothing answers, until you thaw it.";
    case "cut":
      return part.kind === "node"
        ? "Nothing passes any more between it and all servers and other nodes: connections stay open and are silent. Clients still reach it, and get errors."
        : "Nothing passes any more between it and all nodes: connections stay open and are silent.";
    case "slow":
      return "Everything that nodes say to it arrives half a second later.";
    case "failOver":
      return "The primary is killed and its standby promoted, which has every acknowledged commit. Started again, the old primary becomes the standby.";
    default:
      return "";
  }
}
