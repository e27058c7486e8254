/**
 * A post may be shown in many places at once: both home timelines, its thread, a profile, inside a quote. A change to it
 * is made in all that is loaded; what does not hold it keeps its identity, so only the cards concerned draw again.
 */
import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import type { HomePage, Post } from "../api/types";

function isPost(value: object): value is Post {
  return "author" in value && "counts" in value && "kind" in value && "id" in value;
}

function mapPosts<T>(value: T, id: string, change: (post: Post) => Post): T {
  if (Array.isArray(value)) {
    let changed = false;
    const next = value.map((item: unknown) => {
      const mapped = mapPosts(item, id, change);
      if (mapped !== item) changed = true;
      return mapped;
    });
    return changed ? (next as T) : value;
  }
  if (typeof value !== "object" || value === null) return value;
  if (isPost(value) && value.id === id) return change(value) as T;
  let copy: Record<string, unknown> | null = null;
  for (const [name, part] of Object.entries(value)) {
    const mapped: unknown = mapPosts(part, id, change);
    if (mapped === part) continue;
    copy ??= { ...(value as Record<string, unknown>) };
    copy[name] = mapped;
  }
  return copy === null ? value : (copy as T);
}

/** Changes a post wherever it is shown. */
export function updatePost(client: QueryClient, id: string, change: (post: Post) => Post): void {
  client.setQueriesData<unknown>({ predicate: (query) => query.state.data !== undefined }, (data: unknown) =>
    mapPosts(data, id, change),
  );
}

/** Only shapes that hold posts in a list know how to lose one: pages of posts, threads. */
function withoutPost<T>(value: T, id: string): T {
  if (Array.isArray(value)) {
    let changed = false;
    const next: unknown[] = [];
    for (const item of value as unknown[]) {
      const gone =
        typeof item === "object" && item !== null && isPost(item) && (item.id === id || item.repostOf?.id === id);
      const mapped = gone ? undefined : withoutPost(item, id);
      if (mapped !== item) changed = true;
      if (!gone) next.push(mapped);
    }
    return changed ? (next as T) : value;
  }
  if (typeof value !== "object" || value === null) return value;
  if (isPost(value)) {
    if (value.quoteOf?.id !== id) return value;
    const { quoteOf: _, ...rest } = value;
    return { ...rest, quoteGone: true } as T;
  }
  let copy: Record<string, unknown> | null = null;
  for (const [name, part] of Object.entries(value)) {
    const mapped: unknown = withoutPost(part, id);
    if (mapped === part) continue;
    copy ??= { ...(value as Record<string, unknown>) };
    copy[name] = mapped;
  }
  return copy === null ? value : (copy as T);
}

/** Takes a deleted post out of everything that is loaded. */
export function removePost(client: QueryClient, id: string): void {
  client.setQueriesData<unknown>({ predicate: (query) => query.state.data !== undefined }, (data: unknown) =>
    withoutPost(data, id),
  );
}

/** Takes all posts of a person out of the home timelines, as unfollowing, muting and blocking do. */
export function removeAuthor(client: QueryClient, author: string): void {
  client.setQueriesData<InfiniteData<HomePage>>({ queryKey: ["home"] }, (data) =>
    data === undefined
      ? data
      : {
          ...data,
          pages: data.pages.map((page) => ({
            ...page,
            items: page.items.filter((post) => post.author.id !== author && post.repostOf?.author.id !== author),
          })),
        },
  );
}

/** Puts posts on top of the home timeline, newest first, each once. */
export function prependHome(client: QueryClient, order: "latest" | "ranked", posts: Post[]): void {
  client.setQueryData<InfiniteData<HomePage>>(["home", order], (data) => {
    const first = data?.pages[0];
    if (data === undefined || first === undefined) return data;
    const known = new Set(data.pages.flatMap((page) => page.items.map((post) => post.id)));
    const fresh = posts.filter((post) => !known.has(post.id));
    if (fresh.length === 0) return data;
    return { ...data, pages: [{ ...first, items: [...fresh, ...first.items] }, ...data.pages.slice(1)] };
  });
}

/** Whether the loaded part of the home timeline has this post already. */
export function isOnHome(client: QueryClient, id: string): boolean {
  const data = client.getQueryData<InfiniteData<HomePage>>(["home", "latest"]);
  return data?.pages.some((page) => page.items.some((post) => post.id === id)) ?? false;
}
