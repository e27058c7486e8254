import { useQuery } from "@tanstack/react-query";
import { Anchor } from "@mantine/core";
import * as admin from "../api/admin";
import type { Cluster, ClusterNode, Leader, NodeState, Shards } from "../api/types";
import { bytes, duration, fullNumber } from "../lib/format";
import { Age } from "../ui/Age";
import { Figure, Figures } from "../ui/Figure";
import { Panel, TableFrame } from "../ui/Panel";
import { Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";
import { Away } from "./Away";
import { Consumers } from "./Consumers";
import { Moves, Pinned, ShardTable } from "./ShardPanels";
import { useOverview } from "./useOverview";

/** How often the nodes and shards are asked for anew. */
const EVERY = 2000;
/** A silence so unusual is a death. */
const PHI_DEAD = 8;

export default function ClusterSection() {
  const cluster = useQuery({
    queryKey: ["cluster"],
    queryFn: ({ signal }) => admin.cluster(signal),
    refetchInterval: EVERY,
    staleTime: 0,
    meta: { quiet: true },
  });
  const shards = useQuery({
    queryKey: ["shards"],
    queryFn: ({ signal }) => admin.shards(signal),
    refetchInterval: EVERY,
    staleTime: 0,
    meta: { quiet: true },
  });
  const { now, history } = useOverview();

  if (cluster.data === undefined) {
    return cluster.isError ? (
      <Failure error={cluster.error} retry={() => void cluster.refetch()} />
    ) : (
      <RowSkeletons count={6} height={64} />
    );
  }
  const others = cluster.data.nodes.filter((node) => !node.isSelf && node.state === "alive");
  const isAlone = cluster.data.nodes.every((node) => node.isSelf && typeof node.grpc !== "string");
  return (
    <>
      {cluster.isError && <Away error={cluster.error} addresses={others.map((node) => node.http)} />}
      {isAlone ? <Alone /> : <ClusterFigures cluster={cluster.data} shards={shards.data} />}
      <Nodes cluster={cluster.data} />
      {shards.isError && shards.data === undefined && (
        <Failure error={shards.error} retry={() => void shards.refetch()} />
      )}
      {shards.data?.sharded === true && (
        <>
          <ShardTable shards={shards.data} />
          <Moves shards={shards.data} />
          <Pinned shards={shards.data} />
        </>
      )}
      <Leaders cluster={cluster.data} isAlone={isAlone} />
      <Placement cluster={cluster.data} />
      {now !== undefined && <Consumers now={now} history={history} />}
    </>
  );
}

/** What there is to say of a server that keeps everything in one directory. */
function Alone() {
  return (
    <div className={classes.notice} data-testid="alone">
      <strong>This is one node, in one data directory.</strong> It has no other nodes to watch, no shards, and nobody to
      elect a leader against. <code>make cluster</code> starts three nodes on this machine with all that they need; the
      README says how to run them on servers of yours.
    </div>
  );
}

function ClusterFigures({ cluster, shards }: { cluster: Cluster; shards: Shards | undefined }) {
  const alive = cluster.nodes.filter((node) => node.state === "alive").length;
  const dead = cluster.nodes.filter((node) => node.state === "dead").length;
  const all = shards?.shards ?? [];
  const moving = (shards?.moves ?? []).reduce((sum, move) => sum + move.slots, 0);
  const lags = all.flatMap((shard) => shard.replicas).map((replica) => (replica.up ? replica.lagBytes : null));
  const known = lags.filter((lag) => lag !== null);
  const waiting = all.reduce((sum, shard) => sum + (shard.outbox ?? 0), 0);
  const led = cluster.leaders.filter((leader) => typeof leader.holder === "string").length;
  return (
    <div data-testid="cluster-figures">
      <Figures>
        <Figure
          name="Nodes alive"
          value={`${alive} of ${cluster.nodes.filter((node) => node.state !== "left").length}`}
          note={dead === 0 ? `as node ${cluster.node} sees it` : `${dead} dead`}
        />
        <Figure
          name="Shards that answer"
          value={`${all.filter((shard) => shard.up).length} of ${all.filter((shard) => shard.state !== "retired").length}`}
          note={shards === undefined ? "not known yet" : `directory version ${shards.version}`}
        />
        <Figure
          name="Standbys behind"
          value={known.length === 0 ? "–" : bytes(Math.max(...known))}
          note={lags.length === 0 ? "no standby is known" : `${known.length} of ${lags.length} answer`}
        />
        <Figure name="Slots on their way" value={fullNumber(moving)} note={moving === 0 ? "nothing moves" : undefined} />
        <Figure name="Events to relay" value={fullNumber(waiting)} note="in all outboxes" />
        <Figure name="Leaders" value={`${led} of ${cluster.leaders.length}`} note="leases that are held" />
      </Figures>
    </div>
  );
}

const words: Record<NodeState, string> = {
  alive: "alive",
  suspect: "suspect",
  dead: "dead",
  left: "left",
};

function Nodes({ cluster }: { cluster: Cluster }) {
  return (
    <Panel
      title="Nodes"
      text={`What node ${cluster.node} has heard. φ is how long a node has been silent over how long it usually is: above 4 it is suspect, above ${PHI_DEAD} dead, and others take over what it had.`}
    >
      <TableFrame label="Nodes">
        <thead>
          <tr>
            <th>Node</th>
            <th>State</th>
            <th data-number>φ</th>
            <th>Roles</th>
            <th>Serves clients at</th>
            <th>Other nodes reach it at</th>
            <th data-number>Started</th>
            <th data-number>Version</th>
          </tr>
        </thead>
        <tbody>
          {cluster.nodes.map((node) => (
            <tr key={node.node} data-testid="node" data-state={node.state}>
              <td>
                <span className={classes.systemName}>
                  <span className={classes.light} data-state={node.state} aria-hidden="true" />
                  {node.node}
                  {node.isSelf && <span className={classes.chip}>this one</span>}
                </span>
              </td>
              <td>
                <div className={classes.system}>
                  <span className={node.state === "dead" ? classes.bad : undefined}>{words[node.state]}</span>
                  <span className={classes.summary}>
                    <Age time={node.since} />
                  </span>
                </div>
              </td>
              <td data-number>{node.isSelf ? "–" : <Phi node={node} />}</td>
              <td>
                <div className={classes.chips}>
                  {node.roles.map((role) => (
                    <span key={role} className={classes.chip}>
                      {role}
                    </span>
                  ))}
                </div>
              </td>
              <td className={classes.mono}>{typeof node.http === "string" ? <Door node={node} /> : "–"}</td>
              <td className={classes.mono}>{node.grpc ?? "–"}</td>
              <td data-number>
                <Age time={node.started} />
              </td>
              <td data-number>
                {node.version}
                {typeof node.schema === "number" && <span className={classes.summary}> schema {node.schema}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}

/** The console of a node that has one. */
function Door({ node }: { node: ClusterNode }) {
  if (node.isSelf || node.state !== "alive" || !node.roles.includes("api")) return node.http;
  return <Anchor href={`${window.location.protocol}//${node.http ?? ""}/admin/cluster`}>{node.http}</Anchor>;
}

function Phi({ node }: { node: ClusterNode }) {
  const share = Math.min(1, node.phi / PHI_DEAD);
  return (
    <span className={classes.phi}>
      <span className={classes.phiTrack} aria-hidden="true">
        <span className={classes.durationBar} data-bad={node.phi > 4 || undefined} style={{ width: `${share * 100}%` }} />
      </span>
      {node.phi >= 100 ? "> 99" : node.phi.toFixed(1)}
    </span>
  );
}

const taskOf = (leader: Leader): string => {
  if (leader.name.startsWith("relay:")) return `Relays events of ${leader.name.slice(6)}`;
  if (leader.name.startsWith("job.")) return `Runs the job ${leader.name.slice(4)}`;
  return leader.name;
};

function Leaders({ cluster, isAlone }: { cluster: Cluster; isAlone: boolean }) {
  const failure = cluster.leadersFailure;
  if (cluster.leaders.length === 0 && typeof failure !== "string") return null;
  return (
    <Panel
      title="Leaders"
      text={
        isAlone
          ? "What one node at a time does. A job's lease is held while it runs, here by this node."
          : "What one node at a time does, by a lease. The fence grows each time that it changes hands; what a former leader still tries to write under an older one is refused. A job's lease is held while it runs."
      }
    >
      {typeof failure === "string" && (
        <p className={classes.bad} role="alert">
          Who leads is not known: {failure}.
        </p>
      )}
      {cluster.leaders.length > 0 && (
        <TableFrame label="Leaders">
          <thead>
            <tr>
              <th>Task</th>
              <th>Leader</th>
              <th data-number>Fence</th>
              <th data-number>Lease ends in</th>
            </tr>
          </thead>
          <tbody>
            {cluster.leaders.map((leader) => (
              <tr key={leader.name} data-testid="leader">
                <td>
                  <div className={classes.system}>
                    {taskOf(leader)}
                    <span className={`${classes.summary} ${classes.mono}`}>{leader.name}</span>
                  </div>
                </td>
                <td>
                  {typeof leader.holder !== "string" ? (
                    <span className={classes.summary}>nobody now</span>
                  ) : typeof leader.node === "number" ? (
                    <span className={classes.oneLine}>node {leader.node}</span>
                  ) : (
                    <span className={classes.mono}>{leader.holder}</span>
                  )}
                </td>
                <td data-number>{leader.fence ?? "–"}</td>
                <td data-number>{typeof leader.expires === "string" ? untilEnd(leader.expires) : "–"}</td>
              </tr>
            ))}
          </tbody>
        </TableFrame>
      )}
    </Panel>
  );
}

const untilEnd = (time: string): string => duration((new Date(time).getTime() - Date.now()) / 1000);

function Placement({ cluster }: { cluster: Cluster }) {
  if (cluster.placement.length === 0) return null;
  return (
    <Panel
      title="Placement"
      text="Which node has which shard of state in memory: the owner first, then those that have a copy."
    >
      <TableFrame label="Placement">
        <thead>
          <tr>
            <th>Service</th>
            <th>Shards, each with its nodes</th>
          </tr>
        </thead>
        <tbody>
          {cluster.placement.map((service) => (
            <tr key={service.service}>
              <td>{service.service}</td>
              <td>
                <div className={classes.chips}>
                  {service.shards.map((nodes, shard) => (
                    <span key={shard} className={classes.chip}>
                      {shard}: {nodes.length === 0 ? "nobody" : nodes.join(", ")}
                    </span>
                  ))}
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}
