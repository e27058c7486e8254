import { useEffect, useState } from "react";
import { address } from "../api/client";
import { OVERVIEW_LIVE, overview } from "../api/admin";
import { accessToken } from "../api/session";
import type { Overview } from "../api/types";

/** A minute of seconds. */
const KEPT = 60;

export interface OverviewFeed {
  now: Overview | undefined;
  /** The last minute, oldest first. */
  history: Overview[];
  error: unknown;
  live: boolean;
}

/** The node's figures, each second: by server-sent events, or by asking when those don't come. */
export function useOverview(): OverviewFeed {
  const [feed, setFeed] = useState<OverviewFeed>({ now: undefined, history: [], error: null, live: false });

  useEffect(() => {
    let source: EventSource | null = null;
    let timer: number | undefined;
    let stopped = false;

    const take = (now: Overview, live: boolean) =>
      setFeed((before) => ({ now, history: [...before.history.slice(1 - KEPT), now], error: null, live }));

    const ask = async () => {
      try {
        take(await overview(), false);
      } catch (error) {
        setFeed((before) => ({ ...before, error, live: false }));
      }
    };

    const connect = async () => {
      const token = await accessToken().catch(() => null);
      if (token === null || stopped) return;
      source = new EventSource(address(OVERVIEW_LIVE, { access_token: token }));
      source.addEventListener("overview", (event: MessageEvent<string>) => {
        take(JSON.parse(event.data) as Overview, true);
      });
      const again = () => {
        source?.close();
        if (stopped) return;
        void ask();
        timer = window.setTimeout(() => void connect(), 2000);
      };
      source.addEventListener("bye", again);
      source.addEventListener("error", again);
    };

    void ask().then(connect);
    return () => {
      stopped = true;
      source?.close();
      window.clearTimeout(timer);
    };
  }, []);

  return feed;
}
