import { call, callTagged, type CallOptions } from "./client";
import type {
  Author,
  PersonItem,
  HomePage,
  NotificationPage,
  Page,
  Post,
  PostHistory,
  Profile,
  PostThread,
  TrendList,
  TrendWindow,
} from "./types";

const root = "/v1/feed";
const LIST_SIZE = 30;

export type HomeOrder = "latest" | "ranked";

const user = (handle: string) => encodeURIComponent(handle);
const page = (cursor: string | undefined, signal?: AbortSignal): CallOptions => ({
  query: { limit: LIST_SIZE, cursor },
  signal,
});

export const home = (order: HomeOrder, cursor: string | undefined, signal?: AbortSignal) =>
  call<HomePage>("GET", `${root}/home`, {
    query: { order, limit: LIST_SIZE, cursor, explain: order === "ranked" ? true : undefined },
    signal,
  });

/** What is newer than `since`; waits up to `wait` seconds (0 to 30) for something to come. */
export const homeSince = (since: string, wait: number, signal?: AbortSignal) =>
  call<HomePage>("GET", `${root}/home`, { query: { since, wait }, signal });

export const createPost = (
  body: { text: string; replyTo?: string; quoteOf?: string },
  idempotencyKey: string,
) => call<Post>("POST", `${root}/posts`, { body, idempotencyKey });

export const post = (id: string, signal?: AbortSignal) => callTagged<Post>("GET", `${root}/posts/${id}`, { signal });
export const editPost = (id: string, text: string, ifMatch: string | undefined) =>
  call<Post>("PATCH", `${root}/posts/${id}`, { body: { text }, ifMatch });
export const deletePost = (id: string) => call<void>("DELETE", `${root}/posts/${id}`);
export const postHistory = (id: string, signal?: AbortSignal) =>
  call<PostHistory>("GET", `${root}/posts/${id}/history`, { signal });
export const thread = (id: string, cursor: string | undefined, signal?: AbortSignal) =>
  call<PostThread>("GET", `${root}/posts/${id}/thread`, page(cursor, signal));
export const likers = (id: string, cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<Author>>("GET", `${root}/posts/${id}/likes`, page(cursor, signal));

export const setLike = (id: string, on: boolean) =>
  call<{ liked: boolean; likes: number }>(on ? "PUT" : "DELETE", `${root}/posts/${id}/like`);
export const setRepost = (id: string, on: boolean) =>
  call<{ reposted: boolean; reposts: number }>(on ? "PUT" : "DELETE", `${root}/posts/${id}/repost`);
export const setBookmark = (id: string, on: boolean) =>
  call<{ bookmarked: boolean }>(on ? "PUT" : "DELETE", `${root}/posts/${id}/bookmark`);
export const bookmarks = (cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<Post>>("GET", `${root}/bookmarks`, page(cursor, signal));

export type Relation = "follows" | "blocks" | "mutes";
export const setRelation = (relation: Relation, handle: string, on: boolean) =>
  call<void>(on ? "PUT" : "DELETE", `${root}/${relation}/${user(handle)}`);
export const relationList = (relation: "blocks" | "mutes", cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<Author>>("GET", `${root}/${relation}`, page(cursor, signal));

export const profile = (handle: string, signal?: AbortSignal) =>
  call<Profile>("GET", `${root}/users/${user(handle)}`, { signal });
export const userPosts = (handle: string, replies: boolean, cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<Post>>("GET", `${root}/users/${user(handle)}/posts`, {
    query: { replies, limit: LIST_SIZE, cursor },
    signal,
  });
export const people = (
  handle: string,
  side: "followers" | "following",
  cursor: string | undefined,
  signal?: AbortSignal,
) => call<Page<PersonItem>>("GET", `${root}/users/${user(handle)}/${side}`, page(cursor, signal));

export const notifications = (cursor: string | undefined, signal?: AbortSignal) =>
  call<NotificationPage>("GET", `${root}/notifications`, page(cursor, signal));
export const unreadCount = async (signal?: AbortSignal) =>
  (await call<NotificationPage>("GET", `${root}/notifications`, { query: { limit: 1 }, signal })).unread;
export const markRead = (upTo: string) =>
  call<{ unread: number }>("PUT", `${root}/notifications/read`, { body: { upTo } });

export const trends = (window: TrendWindow, limit: number, signal?: AbortSignal) =>
  call<TrendList>("GET", `${root}/trends`, { query: { window, limit }, signal });
export const tagPosts = (tag: string, cursor: string | undefined, signal?: AbortSignal) =>
  call<Page<Post>>("GET", `${root}/tags/${encodeURIComponent(tag)}/posts`, page(cursor, signal));
