import { TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { IconClipboardList } from "@tabler/icons-react";
import { useState } from "react";
import * as identity from "../api/identity";
import { fullTime } from "../lib/format";
import { Endless } from "../ui/Endless";
import { Panel, TableFrame } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";

export default function AuditSection() {
  const [account, setAccount] = useState("");
  const [filter] = useDebouncedValue(account.trim().replace(/^@/, ""), 300);
  const audit = useInfiniteQuery({
    queryKey: ["audit", filter],
    queryFn: async ({ pageParam, signal }) => {
      // The log knows accounts by their ids, people by their handles.
      const account = filter === "" ? undefined : (await identity.account(filter)).body.id;
      return identity.audit({ account, cursor: pageParam }, signal);
    },
    retry: false,
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
    staleTime: 0,
  });
  const items = audit.data?.pages.flatMap((page) => page.items) ?? [];
  const handles = useHandles();
  return (
    <Panel
      title="Audit log"
      text="Logins, changes of permissions, and what administrators did."
      actions={
        <TextInput
          size="xs"
          aria-label="Only of this account"
          placeholder="Filter by handle"
          value={account}
          onChange={(event) => setAccount(event.currentTarget.value)}
          autoCapitalize="none"
          spellCheck={false}
        />
      }
    >
      {audit.isPending && <RowSkeletons />}
      {audit.isError && <Failure error={audit.error} retry={() => void audit.refetch()} />}
      {audit.data !== undefined && items.length === 0 && <Empty icon={IconClipboardList} title="Nothing written yet" />}
      {items.length > 0 && (
        <>
          <TableFrame label="Audit log">
            <thead>
              <tr>
                <th>When</th>
                <th>Who</th>
                <th>Did</th>
                <th>To</th>
                <th>More</th>
                <th>From</th>
              </tr>
            </thead>
            <tbody>
              {items.map((entry) => (
                <tr key={entry.id}>
                  <td className="tabular">{fullTime(entry.time)}</td>
                  <td>{nameOf(entry.actor, handles)}</td>
                  <td className={classes.mono}>{entry.action}</td>
                  <td>{nameOf(entry.subject, handles)}</td>
                  <td className={classes.mono}>{entry.detail}</td>
                  <td className={classes.mono}>{entry.address}</td>
                </tr>
              ))}
            </tbody>
          </TableFrame>
          <Endless
            more={audit.hasNextPage}
            busy={audit.isFetchingNextPage}
            error={audit.isFetchNextPageError ? audit.error : null}
            load={() => void audit.fetchNextPage()}
          />
        </>
      )}
    </Panel>
  );
}

/** Handles by id, of the newest accounts; the others are shown by their ids. */
function useHandles(): Map<string, string> {
  const accounts = useQuery({
    queryKey: ["account-handles"],
    queryFn: ({ signal }) => identity.accounts(undefined, signal, 200),
    staleTime: 60_000,
    meta: { quiet: true },
  });
  return new Map((accounts.data?.items ?? []).map((account) => [account.id, account.handle]));
}

function nameOf(who: string | null | undefined, handles: Map<string, string>): string {
  if (who === null || who === undefined) return "–";
  const id = who.replace(/^account:/, "");
  const handle = handles.get(id);
  return handle === undefined ? who : `@${handle}`;
}
