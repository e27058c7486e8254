import { TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
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
    queryFn: ({ pageParam, signal }) =>
      identity.audit({ account: filter === "" ? undefined : filter, cursor: pageParam }, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
    staleTime: 0,
  });
  const items = audit.data?.pages.flatMap((page) => page.items) ?? [];
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
                  <td>{entry.actor}</td>
                  <td className={classes.mono}>{entry.action}</td>
                  <td>{entry.subject}</td>
                  <td>{entry.detail}</td>
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
