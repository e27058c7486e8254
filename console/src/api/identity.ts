import { call, callTagged, fetchAnswer, type Tagged } from "./client";
import type {
  Account,
  ListedAccount,
  ApiKey,
  AuditEntry,
  Me,
  MintedToken,
  CreatedApiKey,
  Page,
  Role,
  Session,
  Tokens,
} from "./types";

const root = "/v1/identity";

export const signUp = (body: { handle: string; name?: string; password: string }) =>
  call<Account>("POST", `${root}/accounts`, { body, anonymous: true });

export const logIn = (body: { handle: string; password: string }) =>
  call<Tokens>("POST", `${root}/login`, { body, anonymous: true });

export const logOut = () => call<void>("POST", `${root}/logout`);
export const logOutEverywhere = () => call<void>("POST", `${root}/logout/all`);

export const me = (signal?: AbortSignal) => call<Me>("GET", `${root}/me`, { signal });
export const meWith = (token: string) => call<Me>("GET", `${root}/me`, { token });
export const updateMe = (body: { name?: string; bio?: string }) => call<Account>("PATCH", `${root}/me`, { body });

export const sessions = (signal?: AbortSignal) => call<Page<Session>>("GET", `${root}/me/sessions`, { signal });
export const revokeSession = (id: string) => call<void>("DELETE", `${root}/me/sessions/${id}`);

export const changePassword = (body: { current: string; new: string }) =>
  call<void>("PUT", `${root}/me/password`, { body });

export const keys = (signal?: AbortSignal) => call<Page<ApiKey>>("GET", `${root}/me/keys`, { signal });
export const createKey = (body: { name: string; scopes: string[] }) =>
  call<CreatedApiKey>("POST", `${root}/me/keys`, { body });
export const deleteKey = (id: string) => call<void>("DELETE", `${root}/me/keys/${id}`);

/** Everything kept of the signed-in person, as a file. */
export async function exportMe(): Promise<Blob> {
  return (await fetchAnswer("GET", `${root}/me/export`)).blob();
}

export const eraseMe = (password: string | undefined) =>
  call<void>("DELETE", `${root}/me`, { body: password === undefined ? {} : { password } });

// For administrators.

export const accounts = (cursor: string | undefined, signal?: AbortSignal, limit = 50) =>
  call<Page<ListedAccount>>("GET", `${root}/accounts`, { query: { limit, cursor }, signal });

export const account = (handle: string): Promise<Tagged<Account>> =>
  callTagged<Account>("GET", `${root}/accounts/${encodeURIComponent(handle)}`);

export const assignRoles = (handle: string, roles: string[]) =>
  call<{ roles: string[] }>("PUT", `${root}/accounts/${encodeURIComponent(handle)}/roles`, { body: { roles } });

export const roles = (signal?: AbortSignal) => call<Page<Role>>("GET", `${root}/roles`, { signal });

export const mintToken = (handle: string) =>
  call<MintedToken>("POST", `${root}/accounts/${encodeURIComponent(handle)}/tokens`, { body: { expiresIn: 3600 } });

/** The audit log, or the part of it that concerns the account with this id. */
export const audit = (filter: { account?: string; cursor?: string }, signal?: AbortSignal) =>
  call<Page<AuditEntry>>("GET", `${root}/audit`, { query: { ...filter, limit: 50 }, signal });
