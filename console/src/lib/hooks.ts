import { useEffect, useSyncExternalStore } from "react";
import { currentSession, subscribeSession, type StoredSession } from "../api/session";

/** Whoever is signed in; `null` when nobody is. */
export function useSession(): StoredSession | null {
  return useSyncExternalStore(subscribeSession, currentSession);
}

/** Whoever is signed in, for pages that nobody else reaches. */
export function useAccount(): StoredSession["account"] {
  const session = useSession();
  return session?.account ?? { id: "", handle: "", name: "" };
}

const minuteListeners = new Set<() => void>();
let minuteTimer: number | undefined;
let minuteNow = Date.now();

function subscribeMinute(listener: () => void): () => void {
  minuteListeners.add(listener);
  minuteTimer ??= window.setInterval(() => {
    minuteNow = Date.now();
    for (const each of minuteListeners) each();
  }, 30_000);
  return () => {
    minuteListeners.delete(listener);
  };
}

/** The time, told anew twice a minute: one timer for all the ages on a page. */
export function useNow(): number {
  const now = useSyncExternalStore(subscribeMinute, () => minuteNow);
  // A post that just came is newer than the last tick.
  return Math.max(now, minuteNow);
}

export function useOnline(): boolean {
  return useSyncExternalStore(
    (listener) => {
      window.addEventListener("online", listener);
      window.addEventListener("offline", listener);
      return () => {
        window.removeEventListener("online", listener);
        window.removeEventListener("offline", listener);
      };
    },
    () => navigator.onLine,
  );
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? "Holon" : `${title} · Holon`;
  }, [title]);
}
