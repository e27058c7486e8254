/** One way to call the server: tokens, problem documents and retries are dealt with here and nowhere else. */
import { Problem, problemOf, unreachable } from "./problem";
import { accessToken, currentSession, renewToken } from "./session";

export type Query = Record<string, string | number | boolean | undefined>;

export interface CallOptions {
  query?: Query;
  body?: unknown;
  signal?: AbortSignal;
  /** Sent as `If-Match`: the update is refused when somebody else was faster. */
  ifMatch?: string;
  /** Sent as `Idempotency-Key`: the call may be repeated without being done twice. */
  idempotencyKey?: string;
  /** Calls as nobody, also when somebody is signed in. */
  anonymous?: boolean;
  /** Calls with this token instead of the session's. */
  token?: string;
}

export interface Tagged<T> {
  body: T;
  etag: string | undefined;
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

export function address(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text === "" ? path : `${path}?${text}`;
}

async function send(method: Method, path: string, options: CallOptions, token: string | null): Promise<Response> {
  const headers = new Headers({ Accept: "application/json" });
  if (token !== null) headers.set("Authorization", `Bearer ${token}`);
  if (options.body !== undefined) headers.set("Content-Type", "application/json");
  if (options.ifMatch !== undefined) headers.set("If-Match", options.ifMatch);
  if (options.idempotencyKey !== undefined) headers.set("Idempotency-Key", options.idempotencyKey);
  try {
    return await fetch(address(path, options.query), {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw unreachable();
  }
}

/** The answer to a call, whatever kind it has. Throws a {@link Problem} unless it succeeded. */
export async function fetchAnswer(method: Method, path: string, options: CallOptions = {}): Promise<Response> {
  if (options.anonymous || options.token !== undefined) {
    const response = await send(method, path, options, options.token ?? null);
    if (!response.ok) throw await problemOf(response);
    return response;
  }
  const token = await accessToken();
  if (token === null && currentSession() === null) {
    throw new Problem({ status: 401, title: "Signed out", detail: "Your session has ended. Sign in again." });
  }
  let response = await send(method, path, options, token);
  if (response.status === 401 && token !== null) {
    const renewed = await renewToken(token);
    if (renewed !== null) response = await send(method, path, options, renewed);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The answer's JSON body with its entity tag. */
export async function callTagged<T>(method: Method, path: string, options: CallOptions = {}): Promise<Tagged<T>> {
  const response = await fetchAnswer(method, path, options);
  const text = await response.text();
  return {
    body: (text === "" ? undefined : JSON.parse(text)) as T,
    etag: response.headers.get("ETag") ?? undefined,
  };
}

/** The answer's JSON body. */
export async function call<T>(method: Method, path: string, options: CallOptions = {}): Promise<T> {
  return (await callTagged<T>(method, path, options)).body;
}

/** A key for one attempt to do something; repeats of the attempt use the same. */
export function newIdempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
