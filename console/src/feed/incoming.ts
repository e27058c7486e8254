/** Posts that came live and wait to be shown, newest first. */
import { useSyncExternalStore } from "react";
import type { Post } from "../api/types";

let waiting: readonly Post[] = [];
const listeners = new Set<() => void>();

function set(next: readonly Post[]): void {
  waiting = next;
  for (const listener of listeners) listener();
}

export function addIncoming(post: Post): void {
  if (!waiting.some((other) => other.id === post.id)) set([post, ...waiting]);
}

export function dropIncoming(id: string): void {
  if (waiting.some((post) => post.id === id)) set(waiting.filter((post) => post.id !== id));
}

/** All that wait, which then wait no longer. */
export function takeIncoming(): Post[] {
  const taken = [...waiting];
  if (taken.length > 0) set([]);
  return taken;
}

export function useIncoming(): readonly Post[] {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => waiting,
  );
}
