import { useQuery } from "@tanstack/react-query";
import * as admin from "../api/admin";
import { Problem } from "../api/problem";

/** What a lab runs, if this node was started by one; asked for often while `watching`. */
export function useChaos({ allowed, watching }: { allowed: boolean; watching: boolean }) {
  const chaos = useQuery({
    queryKey: ["chaos"],
    queryFn: ({ signal }) => admin.chaos(signal),
    enabled: allowed,
    refetchInterval: (query) => (watching && !isOff(query.state.error) ? 1500 : false),
    staleTime: watching ? 0 : 60_000,
    retry: false,
    meta: { quiet: true },
  });
  return { ...chaos, isOff: isOff(chaos.error) };
}

/** Whether an answer says that there is nothing to break. */
const isOff = (error: unknown): boolean => error instanceof Problem && error.status === 404;
