import { Modal, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { IconTimeline } from "@tabler/icons-react";
import { Fragment, useState } from "react";
import * as admin from "../api/admin";
import type { Span } from "../api/types";
import { clockTime, milliseconds } from "../lib/format";
import { Panel, TableFrame } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";

export default function TracesSection() {
  const [filter, setFilter] = useState("");
  const [chosen, setChosen] = useState<string | null>(null);
  const traces = useQuery({
    queryKey: ["traces"],
    queryFn: ({ signal }) => admin.traces(signal),
    refetchInterval: chosen === null ? 3000 : false,
    staleTime: 0,
  });
  const items = (traces.data?.items ?? []).filter((trace) => trace.name.toLowerCase().includes(filter.toLowerCase()));
  const longest = Math.max(...items.map((trace) => trace.durationMs), 1e-9);
  return (
    <Panel
      title="Recent traces"
      text="What happened because of one request: in its system, in the store, and later in the consumers of its events."
      actions={
        <TextInput
          size="xs"
          aria-label="Only traces whose name holds"
          placeholder="Filter by name"
          value={filter}
          onChange={(event) => setFilter(event.currentTarget.value)}
        />
      }
    >
      {traces.isPending && <RowSkeletons />}
      {traces.isError && traces.data === undefined && (
        <Failure error={traces.error} retry={() => void traces.refetch()} />
      )}
      {traces.data !== undefined && items.length === 0 && <Empty icon={IconTimeline} title="No traces" />}
      {items.length > 0 && (
        <TableFrame label="Recent traces">
          <thead>
            <tr>
              <th>Started by</th>
              <th data-number>At</th>
              <th data-number>Spans</th>
              <th data-number>Took</th>
              <th>
                <span className="visually-hidden">Duration against the others</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {items.map((trace) => (
              <tr key={trace.traceId}>
                <td>
                  <button type="button" className={classes.plainButton} onClick={() => setChosen(trace.traceId)}>
                    {trace.name}
                  </button>
                  {trace.status === "error" && <span className={classes.bad}> failed</span>}
                </td>
                <td data-number>{clockTime(trace.start)}</td>
                <td data-number>{trace.spans}</td>
                <td data-number>{milliseconds(trace.durationMs)}</td>
                <td>
                  <span className={classes.durationTrack} aria-hidden="true">
                    <span
                      className={classes.durationBar}
                      data-bad={trace.status === "error" || undefined}
                      style={{ width: `${(trace.durationMs / longest) * 100}%` }}
                    />
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </TableFrame>
      )}
      {chosen !== null && <TraceDialog id={chosen} close={() => setChosen(null)} />}
    </Panel>
  );
}

interface Placed {
  span: Span;
  depth: number;
}

/** The spans as a tree, written down depth first. A span whose parent is not here is a root. */
function placed(spans: Span[]): Placed[] {
  const known = new Set(spans.map((span) => span.id));
  const children = new Map<string, Span[]>();
  for (const span of spans) {
    const parent = span.parent !== undefined && span.parent !== null && known.has(span.parent) ? span.parent : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const out: Placed[] = [];
  const visit = (parent: string, depth: number) => {
    const below = (children.get(parent) ?? []).sort((a, b) => a.offsetMs - b.offsetMs);
    for (const span of below) {
      out.push({ span, depth });
      visit(span.id, depth + 1);
    }
  };
  visit("", 0);
  return out;
}

function TraceDialog({ id, close }: { id: string; close: () => void }) {
  const [opened, setOpened] = useState<string | null>(null);
  const trace = useQuery({ queryKey: ["trace", id], queryFn: ({ signal }) => admin.trace(id, signal), staleTime: 0 });
  const rows = placed(trace.data?.spans ?? []);
  const end = Math.max(...rows.map(({ span }) => span.offsetMs + span.durationMs), 1e-9);
  return (
    <Modal opened onClose={close} size={880} title={<span className={classes.mono}>{id}</span>} closeButtonProps={{ "aria-label": "Close" }}>
      {trace.isPending && <RowSkeletons count={4} height={24} />}
      {trace.isError && <Failure error={trace.error} />}
      <div className={classes.waterfall}>
        {rows.map(({ span, depth }) => (
          <Fragment key={span.id}>
            <button
              type="button"
              className={classes.span}
              aria-expanded={opened === span.id}
              onClick={() => setOpened(opened === span.id ? null : span.id)}
            >
              <span className={classes.spanName} style={{ paddingInlineStart: depth * 14 }} title={span.name}>
                {span.name}
              </span>
              <span className={classes.lane}>
                <span
                  className={classes.bar}
                  data-kind={span.kind}
                  data-bad={span.status === "error" || undefined}
                  style={{
                    insetInlineStart: `${Math.min(99.5, (span.offsetMs / end) * 100)}%`,
                    width: `${(span.durationMs / end) * 100}%`,
                  }}
                />
              </span>
              <span className={classes.time}>{milliseconds(span.durationMs)}</span>
            </button>
            {opened === span.id && (
              <dl className={classes.attributes}>
                <dt>kind</dt>
                <dd>{span.kind}</dd>
                <dt>starts at</dt>
                <dd>{milliseconds(span.offsetMs)}</dd>
                {Object.entries(span.attributes).map(([name, value]) => (
                  <Fragment key={name}>
                    <dt>{name}</dt>
                    <dd>{value}</dd>
                  </Fragment>
                ))}
              </dl>
            )}
          </Fragment>
        ))}
      </div>
    </Modal>
  );
}
