import { call } from "./client";
import type {
  ChaosAction,
  ChaosPart,
  Cluster,
  DeadLetter,
  Overview,
  Page,
  Rebuild,
  Shards,
  Trace,
  TraceSummary,
} from "./types";

const root = "/v1/admin";

export const OVERVIEW_LIVE = `${root}/overview/live`;

export const overview = (signal?: AbortSignal) => call<Overview>("GET", `${root}/overview`, { signal });

export const traces = (signal?: AbortSignal) =>
  call<{ items: TraceSummary[] }>("GET", `${root}/traces`, { query: { limit: 100 }, signal });
export const trace = (id: string, signal?: AbortSignal) => call<Trace>("GET", `${root}/traces/${id}`, { signal });

export const deadLetters = (cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<DeadLetter>>("GET", `${root}/dead-letters`, { query: { limit: 50, cursor }, signal });
export const replayDeadLetter = ({ group, topic, number }: DeadLetter) =>
  call<{ handled: boolean }>("POST", `${root}/dead-letters/replay`, { body: { group, topic, number } });

export const rebuilds = (signal?: AbortSignal) => call<{ items: Rebuild[] }>("GET", `${root}/rebuild`, { signal });
export const startRebuild = (name: string) =>
  call<Rebuild>("POST", `${root}/rebuild/${encodeURIComponent(name)}`);

export const cluster = (signal?: AbortSignal) => call<Cluster>("GET", `${root}/cluster`, { signal });
export const shards = (signal?: AbortSignal) => call<Shards>("GET", `${root}/shards`, { signal });

export const chaos = (signal?: AbortSignal) => call<{ items: ChaosPart[] }>("GET", `${root}/chaos`, { signal });
export const tellChaos = ({ part, action }: { part: string; action: ChaosAction }) =>
  call<ChaosPart>("POST", `${root}/chaos/${encodeURIComponent(part)}`, { body: { action } });
