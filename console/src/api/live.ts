/**
 * What happens, as it happens: one connection for the whole console.
 *
 * It tries a WebSocket first, then server-sent events, then long polling, and stays with what works, since a proxy
 * that swallows one will swallow it again. Every transport resumes from the cursor of the last item seen, so nothing is
 * missed in between; ids already seen are the receiver's to drop.
 */
import { address } from "./client";
import { homeSince } from "./feed";
import { me } from "./identity";
import { accessToken } from "./session";
import { Problem } from "./problem";
import type { Post } from "./types";

export type LiveEvent =
  | { type: "post"; post: Post }
  | { type: "deleted"; id: string }
  | { type: "notification"; unread: number };

export type Transport = "websocket" | "events" | "polling";
export interface LiveStatus {
  state: "idle" | "connecting" | "live" | "waiting";
  transport: Transport;
}

const PATH = "/v1/feed/home/live";
/** The server's heartbeat comes more often than this; silence for longer means the connection is dead. */
const SILENCE_MS = 45_000;
const SLOWEST_RETRY_MS = 20_000;
const order: Transport[] = ["websocket", "events", "polling"];

interface Message {
  type?: unknown;
  id?: unknown;
  since?: unknown;
  post?: unknown;
  unread?: unknown;
  retryAfterMs?: unknown;
}

/** Why a connection ended. `opened`: it worked for a while, so the transport is fine. */
interface Ending {
  opened: boolean;
  retryAfterMs?: number;
}

export class LiveFeed {
  private since: string | undefined;
  private transport: Transport = "websocket";
  private failures = 0;
  private stopped = true;
  private hangUp: (() => void) | null = null;
  private status: LiveStatus = { state: "idle", transport: "websocket" };
  private readonly eventListeners = new Set<(event: LiveEvent) => void>();
  private readonly statusListeners = new Set<() => void>();
  private generation = 0;

  onEvent(listener: (event: LiveEvent) => void): () => void {
    this.eventListeners.add(listener);
    return () => this.eventListeners.delete(listener);
  }

  onStatus = (listener: () => void): (() => void) => {
    this.statusListeners.add(listener);
    return () => this.statusListeners.delete(listener);
  };

  currentStatus = (): LiveStatus => this.status;

  /** Begins, after `patience` milliseconds at most: within them a caller may say from where (`resumeFrom`). */
  start(patience: number): void {
    if (!this.stopped) return;
    this.stopped = false;
    this.generation += 1;
    const generation = this.generation;
    const begin = () => {
      window.clearTimeout(timer);
      this.hangUp = null;
      void this.run(generation);
    };
    const timer = window.setTimeout(begin, patience);
    this.hangUp = begin;
  }

  stop(): void {
    this.stopped = true;
    this.since = undefined;
    this.hangUp?.();
    this.setStatus("idle");
  }

  /** Says up to where the caller knows everything. A connection that began without this knowledge begins again. */
  resumeFrom(since: string | undefined): void {
    if (since === undefined || this.since !== undefined) return;
    this.since = since;
    this.hangUp?.();
  }

  private setStatus(state: LiveStatus["state"]): void {
    if (this.status.state === state && this.status.transport === this.transport) return;
    this.status = { state, transport: this.transport };
    for (const listener of this.statusListeners) listener();
  }

  private emit(event: LiveEvent): void {
    for (const listener of this.eventListeners) listener(event);
  }

  private async run(generation: number): Promise<void> {
    while (!this.stopped && generation === this.generation) {
      this.setStatus("connecting");
      const ending = await this.connectOnce().catch((): Ending => ({ opened: false }));
      if (this.stopped || generation !== this.generation) return;
      if (ending.opened) {
        this.failures = 0;
      } else {
        this.failures += 1;
        if (navigator.onLine && this.failures % 2 === 0) this.nextTransport();
      }
      this.setStatus("waiting");
      const backOff = Math.min(SLOWEST_RETRY_MS, 250 * 2 ** Math.min(this.failures, 7));
      await pause(ending.retryAfterMs ?? (ending.opened ? 50 : backOff * (0.5 + Math.random() / 2)));
    }
  }

  private nextTransport(): void {
    const next = order[order.indexOf(this.transport) + 1];
    this.transport = next ?? "websocket";
  }

  private async connectOnce(): Promise<Ending> {
    const token = await accessToken();
    if (token === null) {
      this.stop();
      return { opened: false };
    }
    const url = address(PATH, { since: this.since, access_token: token });
    const ending = await (this.transport === "websocket"
      ? this.overWebSocket(url)
      : this.transport === "events"
        ? this.overEvents(url)
        : this.overPolling());
    this.hangUp = null;
    if (!ending.opened && this.failures === 1 && navigator.onLine) {
      // A refused upgrade does not say why. If the token is no longer good, asking for anything renews it; if the server
      // is away, nobody is signed out.
      await me().catch(() => null);
    }
    return ending;
  }

  /** Takes in one message. Returns the wait that a good-bye asks for. */
  private receive(text: string): number | undefined {
    let message: Message;
    try {
      message = JSON.parse(text) as Message;
    } catch {
      return undefined;
    }
    if (typeof message.since === "string") this.since = message.since;
    switch (message.type) {
      case "post":
        if (typeof message.post === "object" && message.post !== null) {
          this.emit({ type: "post", post: message.post as Post });
        }
        return undefined;
      case "deleted":
        if (typeof message.id === "string") this.emit({ type: "deleted", id: message.id });
        return undefined;
      case "notification":
        if (typeof message.unread === "number") this.emit({ type: "notification", unread: message.unread });
        return undefined;
      case "bye":
        return typeof message.retryAfterMs === "number" ? message.retryAfterMs : 1000;
      default:
        return undefined;
    }
  }

  private overWebSocket(url: string): Promise<Ending> {
    return new Promise((resolve) => {
      const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
      const socket = new WebSocket(`${scheme}//${window.location.host}${url}`);
      const ending: Ending = { opened: false };
      const silence = new Watch(SILENCE_MS, () => socket.close());
      this.hangUp = () => socket.close();
      socket.addEventListener("open", () => {
        ending.opened = true;
        this.setStatus("live");
      });
      socket.addEventListener("message", (event) => {
        silence.reset();
        if (typeof event.data !== "string") return;
        const wait = this.receive(event.data);
        if (wait !== undefined) {
          ending.retryAfterMs = wait;
          socket.close();
        }
      });
      socket.addEventListener("close", () => {
        silence.stop();
        resolve(ending);
      });
    });
  }

  private overEvents(url: string): Promise<Ending> {
    return new Promise((resolve) => {
      const source = new EventSource(url);
      const ending: Ending = { opened: false };
      const finish = () => {
        silence.stop();
        source.close();
        resolve(ending);
      };
      const silence = new Watch(SILENCE_MS, finish);
      this.hangUp = finish;
      source.addEventListener("open", () => {
        ending.opened = true;
        this.setStatus("live");
      });
      source.addEventListener("error", finish);
      for (const type of ["post", "deleted", "notification", "heartbeat", "bye"]) {
        source.addEventListener(type, (event: MessageEvent<string>) => {
          silence.reset();
          const wait = this.receive(event.data);
          if (wait !== undefined) {
            ending.retryAfterMs = wait;
            finish();
          }
        });
      }
    });
  }

  private async overPolling(): Promise<Ending> {
    const abort = new AbortController();
    this.hangUp = () => abort.abort();
    let opened = false;
    try {
      while (!this.stopped) {
        if (this.since === undefined) return { opened, retryAfterMs: 2000 };
        const answer = await homeSince(this.since, opened ? 25 : 0, abort.signal);
        opened = true;
        this.setStatus("live");
        if (answer.since !== undefined) this.since = answer.since;
        for (const post of [...answer.items].reverse()) this.emit({ type: "post", post });
      }
    } catch (error) {
      if (error instanceof Problem && error.retryAfter !== undefined) {
        return { opened, retryAfterMs: error.retryAfter * 1000 };
      }
    }
    return { opened };
  }
}

/** Calls back when it was not reset for a while. */
class Watch {
  private timer: number;
  constructor(
    private readonly milliseconds: number,
    private readonly expired: () => void,
  ) {
    this.timer = window.setTimeout(expired, milliseconds);
  }
  reset(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(this.expired, this.milliseconds);
  }
  stop(): void {
    window.clearTimeout(this.timer);
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => window.setTimeout(resolve, milliseconds));
}

export const liveFeed = new LiveFeed();
