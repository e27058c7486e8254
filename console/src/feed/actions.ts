/** Likes, reposts and bookmarks: shown at once, told to the server, taken back if it refuses. */
import type { QueryClient } from "@tanstack/react-query";
import * as feed from "../api/feed";
import type { Post } from "../api/types";
import { showProblem } from "../ui/notify";
import { updatePost } from "./cache";

export type ToggleKind = "like" | "repost" | "bookmark";

const flags = { like: "liked", repost: "reposted", bookmark: "bookmarked" } as const;

/** What a toggle is to become, for those whose call is under way: clicks meanwhile only change the wish. */
const wishes = new Map<string, { wanted: boolean }>();

function show(client: QueryClient, id: string, kind: ToggleKind, on: boolean): void {
  updatePost(client, id, (post) => {
    const viewer = post.viewer ?? { liked: false, reposted: false, bookmarked: false };
    if (viewer[flags[kind]] === on) return post;
    const step = on ? 1 : -1;
    const counts = { ...post.counts };
    if (kind === "like") counts.likes = Math.max(0, counts.likes + step);
    if (kind === "repost") counts.reposts = Math.max(0, counts.reposts + step);
    return { ...post, counts, viewer: { ...viewer, [flags[kind]]: on } };
  });
}

/** Sets what the server counted, which knows of everybody's likes. */
async function tell(client: QueryClient, id: string, kind: ToggleKind, on: boolean): Promise<void> {
  if (kind === "like") {
    const { likes } = await feed.setLike(id, on);
    updatePost(client, id, (post) => ({ ...post, counts: { ...post.counts, likes } }));
  } else if (kind === "repost") {
    const { reposts } = await feed.setRepost(id, on);
    updatePost(client, id, (post) => ({ ...post, counts: { ...post.counts, reposts } }));
  } else {
    await feed.setBookmark(id, on);
    await client.invalidateQueries({ queryKey: ["bookmarks"], refetchType: "none" });
  }
}

export async function toggle(client: QueryClient, post: Post, kind: ToggleKind): Promise<void> {
  const wanted = !(post.viewer?.[flags[kind]] ?? false);
  const name = `${kind} ${post.id}`;
  show(client, post.id, kind, wanted);

  const underWay = wishes.get(name);
  if (underWay !== undefined) {
    underWay.wanted = wanted;
    return;
  }
  const wish = { wanted };
  wishes.set(name, wish);
  let confirmed = !wanted;
  try {
    while (wish.wanted !== confirmed) {
      const target = wish.wanted;
      await tell(client, post.id, kind, target);
      confirmed = target;
    }
  } catch (error) {
    show(client, post.id, kind, confirmed);
    showProblem(error);
  } finally {
    wishes.delete(name);
  }
}
