/** The inside of feed, for its glass box. */
import { call } from "./client";
import type { FeedInspection, PostInspection, HomeInspection } from "./types";

const root = "/v1/feed/inspect";

export const inspectFeed = (signal?: AbortSignal) => call<FeedInspection>("GET", root, { signal });

export const inspectPost = (id: string, signal?: AbortSignal) =>
  call<PostInspection>("GET", `${root}/posts/${encodeURIComponent(id)}`, { signal });

export const inspectUserHome = (handle: string, signal?: AbortSignal) =>
  call<HomeInspection>("GET", `${root}/users/${encodeURIComponent(handle)}/home`, { query: { limit: 200 }, signal });
