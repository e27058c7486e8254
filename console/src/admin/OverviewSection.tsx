import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import * as admin from "../api/admin";
import type { Overview } from "../api/types";
import { bytes, duration, fullNumber, milliseconds, percent, perSecond } from "../lib/format";
import { usePermission } from "../shell/me";
import { Figure, Figures } from "../ui/Figure";
import { showProblem } from "../ui/notify";
import { Panel, TableFrame } from "../ui/Panel";
import { Sparkline } from "../ui/Sparkline";
import { Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";
import { Consumers } from "./Consumers";
import { useOverview } from "./useOverview";

export default function OverviewSection() {
  const { now, history, error, live } = useOverview();
  if (now === undefined) {
    return error === null ? <RowSkeletons count={6} height={64} /> : <Failure error={error} />;
  }
  return (
    <>
      <NodeFigures now={now} live={live} />
      <Systems now={now} history={history} />
      <Consumers now={now} history={history} />
      <StoreFigures now={now} history={history} />
      <Projections />
    </>
  );
}

const total = (values: number[]): number => values.reduce((sum, value) => sum + value, 0);
const requests = (overview: Overview): number => total(overview.systems.map((system) => system.requestsPerSecond));
const lag = (overview: Overview): number => total(overview.consumers.map((consumer) => consumer.lag));

function NodeFigures({ now, live }: { now: Overview; live: boolean }) {
  const letters = total(now.consumers.map((consumer) => consumer.deadLetters));
  return (
    <div data-testid="overview" data-live={live || undefined}>
      <Figures>
        <Figure name="Requests a second" value={perSecond(requests(now))} note="over the last minute" />
        <Figure name="Events waiting" value={fullNumber(lag(now))} note={`${fullNumber(letters)} dead letters`} />
        <Figure name="Commits a second" value={perSecond(now.store.commitsPerSecond)} />
        <Figure name="Memory" value={bytes(now.memoryBytes)} note="resident" />
        <Figure name="On disk" value={bytes(now.store.diskBytes)} note={`${bytes(now.store.freeBytes)} free`} />
        <Figure
          name="Up for"
          value={duration(now.uptimeSeconds)}
          note={`version ${now.version}, node ${now.node}, ${live ? "live" : "polled"}`}
        />
      </Figures>
    </div>
  );
}

function Systems({ now, history }: { now: Overview; history: Overview[] }) {
  return (
    <Panel title="Systems" text="Requests, 5xx answers and latency of each system's routes, over the last minute.">
      <TableFrame label="Systems">
        <thead>
          <tr>
            <th>System</th>
            <th data-number>Requests/s</th>
            <th>Last minute</th>
            <th data-number>Errors</th>
            <th data-number>p50</th>
            <th data-number>p99</th>
          </tr>
        </thead>
        <tbody>
          {now.systems.map((system) => (
            <tr key={system.name}>
              <td>
                <div className={classes.system}>
                  <span className={classes.systemName}>
                    <span className={classes.light} data-bad={!system.ready || undefined} aria-hidden="true" />
                    {system.name}
                    {!system.ready && <span className={classes.bad}>not ready</span>}
                  </span>
                  <span className={classes.summary}>{system.ready || system.detail === "" ? system.summary : system.detail}</span>
                </div>
              </td>
              <td data-number>{perSecond(system.requestsPerSecond)}</td>
              <td>
                <Sparkline
                  label={`Requests a second of ${system.name} in the last minute`}
                  values={history.map(
                    (each) => each.systems.find((other) => other.name === system.name)?.requestsPerSecond ?? 0,
                  )}
                />
              </td>
              <td data-number className={system.errorRate > 0 ? classes.bad : undefined}>
                {percent(system.errorRate)}
              </td>
              <td data-number>{milliseconds(system.p50Ms)}</td>
              <td data-number>{milliseconds(system.p99Ms)}</td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}

function StoreFigures({ now, history }: { now: Overview; history: Overview[] }) {
  const { store } = now;
  return (
    <Panel
      title="Store"
      text="Concurrent commits share one journal write and one sync: the more come at once, the larger the group."
      actions={
        <Sparkline
          label="Commits a second in the last minute"
          values={history.map((each) => each.store.commitsPerSecond)}
          width={200}
        />
      }
    >
      {store.failure !== undefined && store.failure !== null && (
        <p className={classes.bad} role="alert">
          Nothing can be written: {store.failure}
        </p>
      )}
      <Figures>
        <Figure name="Commits" value={fullNumber(store.commits)} note="since the start" />
        <Figure name="Events" value={fullNumber(store.events)} note="since the start" />
        <Figure name="Commits in a group" value={store.groupSize.toFixed(1)} note="on average" />
        <Figure name="Write and sync" value={milliseconds(store.groupMicros / 1000)} note="a group" />
        <Figure name="Commits waiting" value={fullNumber(store.queueDepth)} />
        <Figure name="Caches" value={bytes(store.cacheBytes)} note={`${bytes(store.memtableBytes)} in memtables`} />
      </Figures>
    </Panel>
  );
}

function Projections() {
  const client = useQueryClient();
  const allowed = usePermission("admin.rebuild");
  const rebuilds = useQuery({
    queryKey: ["rebuilds"],
    queryFn: ({ signal }) => admin.rebuilds(signal),
    refetchInterval: (query) => (query.state.data?.items.some((each) => each.state === "running") ? 1000 : 10_000),
    meta: { quiet: true },
  });
  const start = useMutation({
    mutationFn: admin.startRebuild,
    onSuccess: () => client.invalidateQueries({ queryKey: ["rebuilds"] }),
    onError: showProblem,
  });
  const items = rebuilds.data?.items ?? [];
  if (items.length === 0) return null;
  return (
    <Panel title="Projections" text="What can be thrown away and made anew from rows and the log, while it serves.">
      <TableFrame label="Projections">
        <thead>
          <tr>
            <th>Projection</th>
            <th>Last rebuild</th>
            <th>
              <span className="visually-hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {items.map((each) => (
            <tr key={each.name}>
              <td>{each.name}</td>
              <td>
                {each.state === "idle" ? "none since the start" : each.state}
                {each.detail !== "" && <span className={classes.summary}> · {each.detail}</span>}
              </td>
              <td data-number>
                <Button
                  size="compact-xs"
                  variant="default"
                  disabled={allowed !== true || each.state === "running"}
                  loading={start.isPending && start.variables === each.name}
                  onClick={() => start.mutate(each.name)}
                  aria-label={`Rebuild ${each.name}`}
                >
                  Rebuild
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}
