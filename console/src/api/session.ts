/**
 * Who is signed in, in this tab and in all others.
 *
 * The session lives in localStorage, so that every tab has the same one. Refresh tokens rotate and a family is revoked
 * when an old one is used again; so only one tab may refresh at a time: it holds a Web Lock, and the others find the
 * new tokens in storage when they get the lock. A BroadcastChannel tells the other tabs of every change.
 *
 * A tab can act for somebody else with a short-lived token that an administrator minted: that session is kept in
 * sessionStorage, goes before the shared one, and ends with the tab.
 */
import { Problem, problemOf, unreachable } from "./problem";
import type { Account, Tokens } from "./types";

export interface StoredSession {
  accessToken: string;
  /** Missing when the person signed in with a bare token: then there is nothing to refresh. */
  refreshToken?: string;
  /** Milliseconds since 1970; missing when not known. */
  expiresAt?: number;
  account: Pick<Account, "id" | "handle" | "name">;
  /** This tab only. */
  borrowed?: boolean;
}

const KEY = "holon.session";
const LOCK = "holon.session.refresh";
/** A token this close to its end is renewed before it is used. */
const MARGIN_MS = 15_000;

const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("holon.session");
const listeners = new Set<() => void>();

let snapshot = readStorage();

function parse(text: string | null): StoredSession | null {
  if (text === null) return null;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && "accessToken" in value && "account" in value) {
      return value as StoredSession;
    }
  } catch {
    // Not ours; as good as nothing.
  }
  return null;
}

function readStorage(): StoredSession | null {
  return parse(sessionStorage.getItem(KEY)) ?? parse(localStorage.getItem(KEY));
}

function refreshSnapshot(): void {
  const next = readStorage();
  if (next?.accessToken === snapshot?.accessToken && next?.account.name === snapshot?.account.name) return;
  snapshot = next;
  for (const listener of listeners) listener();
}

function tellOthers(): void {
  refreshSnapshot();
  channel?.postMessage("changed");
}

channel?.addEventListener("message", refreshSnapshot);
window.addEventListener("storage", (event) => {
  if (event.key === KEY || event.key === null) refreshSnapshot();
});

export function currentSession(): StoredSession | null {
  return snapshot;
}

export function subscribeSession(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function summary(account: Pick<Account, "id" | "handle" | "name">): StoredSession["account"] {
  return { id: account.id, handle: account.handle, name: account.name };
}

export function startSession(tokens: Tokens): void {
  localStorage.setItem(
    KEY,
    JSON.stringify({
      accessToken: tokens.accessToken,
      refreshToken: tokens.refreshToken,
      expiresAt: Date.now() + tokens.expiresIn * 1000,
      account: summary(tokens.account),
    } satisfies StoredSession),
  );
  tellOthers();
}

/** Signs in with a token somebody was given: an API key or the administrator's token. */
export function startTokenSession(accessToken: string, account: Account): void {
  localStorage.setItem(KEY, JSON.stringify({ accessToken, account: summary(account) } satisfies StoredSession));
  tellOthers();
}

/** Acts for somebody else in this tab only. `expiresIn` in seconds. */
export function borrowSession(accessToken: string, expiresIn: number, account: Account): void {
  const session: StoredSession = {
    accessToken,
    expiresAt: Date.now() + expiresIn * 1000,
    account: summary(account),
    borrowed: true,
  };
  sessionStorage.setItem(KEY, JSON.stringify(session));
  refreshSnapshot();
}

/** Keeps the name shown in the corner right after a change to the profile. */
export function renameSession(name: string): void {
  if (snapshot === null) return;
  const storage = snapshot.borrowed ? sessionStorage : localStorage;
  storage.setItem(KEY, JSON.stringify({ ...snapshot, account: { ...snapshot.account, name } }));
  tellOthers();
}

/** Forgets the session here and in all other tabs. A borrowed one only in this tab. */
export function endSession(): void {
  if (sessionStorage.getItem(KEY) !== null) {
    sessionStorage.removeItem(KEY);
    refreshSnapshot();
    return;
  }
  localStorage.removeItem(KEY);
  tellOthers();
}

function isFresh(session: StoredSession): boolean {
  return session.expiresAt === undefined || session.expiresAt - Date.now() > MARGIN_MS;
}

async function alone(work: () => Promise<string | null>): Promise<string | null> {
  // Without a secure context there are no locks; then two tabs may collide, and the later one signs in again.
  const locks: LockManager | undefined = navigator.locks;
  if (locks === undefined) return work();
  return locks.request(LOCK, work);
}

let refreshing: Promise<string | null> | null = null;

/** The access token to send, renewed when it is about to end; `null` when nobody is signed in. */
export async function accessToken(): Promise<string | null> {
  const session = currentSession();
  if (session === null) return null;
  if (isFresh(session)) return session.accessToken;
  return renewToken(session.accessToken);
}

/** Replaces a token that the server no longer takes. `null` when the session is over; then it is also forgotten. */
export function renewToken(rejected: string): Promise<string | null> {
  refreshing ??= alone(() => renewAlone(rejected)).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function renewAlone(rejected: string): Promise<string | null> {
  const session = readStorage();
  if (session === null) {
    refreshSnapshot();
    return null;
  }
  if (session.accessToken !== rejected && isFresh(session)) {
    refreshSnapshot();
    return session.accessToken;
  }
  if (session.refreshToken === undefined) {
    endSession();
    return null;
  }
  const response = await fetch("/v1/identity/tokens/refresh", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ refreshToken: session.refreshToken }),
  }).catch(() => {
    throw unreachable();
  });
  if (response.ok) {
    const tokens = (await response.json()) as Tokens;
    startSession(tokens);
    return tokens.accessToken;
  }
  const problem: Problem = await problemOf(response);
  if (problem.status >= 500 || problem.status === 429) throw problem;
  endSession();
  return null;
}
