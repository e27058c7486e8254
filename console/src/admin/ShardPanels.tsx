import type { Move, Shard, Shards } from "../api/types";
import { bytes, duration, fullNumber } from "../lib/format";
import { Panel, TableFrame } from "../ui/Panel";
import classes from "./Admin.module.css";

const orUnknown = <T,>(value: T | null | undefined, show: (value: T) => string): string =>
  value === null || value === undefined ? "–" : show(value);

export function ShardTable({ shards }: { shards: Shards }) {
  const most = Math.max(...shards.shards.map((shard) => shard.slots), 1);
  return (
    <Panel
      title="Shards"
      text="Databases, and how many of the slots each has. Rows and sizes are PostgreSQL's own estimates."
    >
      <TableFrame label="Shards">
        <thead>
          <tr>
            <th>Shard</th>
            <th data-number>Slots</th>
            <th>
              <span className="visually-hidden">Slots against the other shards</span>
            </th>
            <th data-number>Rows</th>
            <th data-number>Size</th>
            <th data-number>Events to relay</th>
            <th>Standbys</th>
          </tr>
        </thead>
        <tbody>
          {shards.shards.map((shard) => (
            <tr key={shard.name} data-testid="shard">
              <td>
                <span className={classes.systemName}>
                  <span className={classes.light} data-bad={isLost(shard) || undefined} aria-hidden="true" />
                  {shard.name}
                  {shard.state !== "active" && <span className={classes.chip}>{shard.state}</span>}
                  {isLost(shard) && <span className={classes.bad}>does not answer</span>}
                </span>
              </td>
              <td data-number>{fullNumber(shard.slots)}</td>
              <td>
                <span className={classes.durationTrack} aria-hidden="true">
                  <span className={classes.durationBar} style={{ width: `${(shard.slots / most) * 100}%` }} />
                </span>
              </td>
              <td data-number>{orUnknown(shard.rows, fullNumber)}</td>
              <td data-number>{orUnknown(shard.bytes, bytes)}</td>
              <td data-number>{orUnknown(shard.outbox, fullNumber)}</td>
              <td>
                <Standbys shard={shard} />
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}

const isLost = (shard: Shard): boolean => !shard.up && shard.state !== "retired";

function Standbys({ shard }: { shard: Shard }) {
  if (shard.replicas.length === 0) return <span className={classes.summary}>none known</span>;
  return (
    <ul className={classes.plainList}>
      {shard.replicas.map((replica, index) => (
        <li key={index}>
          {!replica.up ? (
            <span className={classes.bad}>does not answer</span>
          ) : (
            <>
              {orUnknown(replica.lagBytes, bytes)} behind
              {typeof replica.lagSeconds === "number" && replica.lagSeconds >= 1 && (
                <span className={classes.summary}> {duration(replica.lagSeconds)}</span>
              )}
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

const stages: Record<string, string> = {
  waiting: "waiting",
  copying: "copying",
  frozen: "commits held back",
  opening: "opening at the target",
  clearing: "clearing what was left",
};

const keyOf = (move: Move): string => `${move.from ?? ""} ${move.to} ${move.stage} ${move.ageSeconds}`;

export function Moves({ shards }: { shards: Shards }) {
  const left = shards.moves.reduce((sum, move) => sum + move.slots, 0);
  return (
    <Panel
      title="Moves"
      text={
        left === 0 ? (
          <>
            No slot is on its way. <code>holon shards move</code> and <code>drain</code> move them while everything
            serves.
          </>
        ) : (
          `${fullNumber(left)} slots have yet to arrive; they move at a bounded rate, while everything serves${shards.mover === null ? ", as soon as a node takes it on" : ""}.`
        )
      }
    >
      {shards.moves.length > 0 && (
        <TableFrame label="Moves">
          <thead>
            <tr>
              <th>From</th>
              <th>To</th>
              <th>Stage</th>
              <th data-number>Slots</th>
              <th data-number>Copied rows</th>
              <th data-number>Copied</th>
              <th data-number>Asked for</th>
            </tr>
          </thead>
          <tbody>
            {shards.moves.map((move) => (
              <tr key={keyOf(move)} data-testid="move">
                <td>{move.from ?? "all shards"}</td>
                <td>{move.to}</td>
                <td>
                  <div className={classes.system}>
                    {stages[move.stage] ?? move.stage}
                    {typeof move.trouble === "string" && <span className={classes.bad}>{move.trouble}</span>}
                  </div>
                </td>
                <td data-number>{fullNumber(move.slots)}</td>
                <td data-number>{fullNumber(move.rows)}</td>
                <td data-number>{bytes(move.bytes)}</td>
                <td data-number>{duration(move.ageSeconds)} ago</td>
              </tr>
            ))}
          </tbody>
        </TableFrame>
      )}
    </Panel>
  );
}

const named = (rule: Shards["rules"][number]["rule"]): string => {
  const whose = typeof rule.tenant === "string" ? `tenant ${rule.tenant}` : "every tenant";
  if (typeof rule.partition === "string") return `${rule.partition} of ${whose}`;
  if (typeof rule.prefix === "string") return `${rule.prefix}… of ${whose}`;
  if (typeof rule.low === "string") return `${rule.low} to ${rule.high ?? "the end"} of ${whose}`;
  return whose;
};

/** Partitions with a slot of their own, if there are any. */
export function Pinned({ shards }: { shards: Shards }) {
  if (shards.rules.length === 0) return null;
  return (
    <Panel title="Pinned" text="Partitions that have a slot of their own, wherever their hash would put them.">
      <TableFrame label="Pinned">
        <thead>
          <tr>
            <th>Partitions</th>
            <th>Shard</th>
            <th data-number>Slot</th>
          </tr>
        </thead>
        <tbody>
          {shards.rules.map((rule) => (
            <tr key={rule.slot}>
              <td>{named(rule.rule)}</td>
              <td>
                {rule.shard}
                {!rule.active && <span className={classes.summary}> rows are being gathered</span>}
              </td>
              <td data-number>{rule.slot}</td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}
