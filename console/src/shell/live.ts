import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import * as feed from "../api/feed";
import { liveFeed, type LiveStatus } from "../api/live";
import { isOnHome, removePost } from "../feed/cache";
import { addIncoming, dropIncoming, takeIncoming } from "../feed/incoming";

/** Keeps the live connection while somebody is signed in, and lets what comes change what is loaded. */
export function useLiveFeed(accountId: string): void {
  const client = useQueryClient();

  useEffect(() => {
    const stopListening = liveFeed.onEvent((event) => {
      switch (event.type) {
        case "post":
          if (!isOnHome(client, event.post.id)) addIncoming(event.post);
          break;
        case "deleted":
          dropIncoming(event.id);
          removePost(client, event.id);
          break;
        case "notification":
          client.setQueryData<number>(["unread"], event.unread);
          void client.invalidateQueries({ queryKey: ["notifications"] });
          break;
      }
    });
    // The home page knows the cursor to begin at as soon as it is loaded.
    liveFeed.start(window.location.pathname === "/" ? 2000 : 0);
    // A session that was ended elsewhere takes its connection with it: ask at once who we are.
    let wasLive = false;
    const stopWatching = liveFeed.onStatus(() => {
      const live = liveFeed.currentStatus().state === "live";
      if (wasLive && !live) void client.invalidateQueries({ queryKey: ["me"] });
      wasLive = live;
    });
    return () => {
      stopListening();
      stopWatching();
      liveFeed.stop();
      takeIncoming();
    };
  }, [client, accountId]);
}

export function useLiveStatus(): LiveStatus {
  return useSyncExternalStore(liveFeed.onStatus, liveFeed.currentStatus);
}

/** How many notifications are unread: asked once, then told live. */
export function useUnread(): number {
  const status = useLiveStatus();
  const query = useQuery({
    queryKey: ["unread"],
    queryFn: ({ signal }) => feed.unreadCount(signal),
    // Long polling tells of posts only.
    refetchInterval: status.state === "live" && status.transport !== "polling" ? false : 30_000,
    meta: { quiet: true },
  });
  return query.data ?? 0;
}
