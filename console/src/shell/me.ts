import { useQuery } from "@tanstack/react-query";
import * as identity from "../api/identity";
import type { Me } from "../api/types";

/**
 * The signed-in person with what they may do. Asked for again now and then, and whenever the window gets the focus:
 * that is also how a session that was ended elsewhere is noticed here.
 */
export function useMe(): Me | undefined {
  return useQuery({
    queryKey: ["me"],
    queryFn: ({ signal }) => identity.me(signal),
    staleTime: 5_000,
    refetchInterval: 20_000,
    refetchOnWindowFocus: "always",
    meta: { quiet: true },
  }).data;
}

/** Whether a set of permissions holds one; `feed.*` holds all of feed's, `*` all. */
export function holds(permissions: readonly string[], wanted: string): boolean {
  return permissions.some(
    (permission) =>
      permission === "*" ||
      permission === wanted ||
      (permission.endsWith(".*") && wanted.startsWith(permission.slice(0, -1))),
  );
}

/** `undefined` until it is known. */
export function usePermission(permission: string): boolean | undefined {
  const me = useMe();
  return me === undefined ? undefined : holds(me.permissions, permission);
}
