import { Button } from "@mantine/core";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { IconMailCheck } from "@tabler/icons-react";
import * as admin from "../api/admin";
import type { DeadLetter } from "../api/types";
import { fullTime } from "../lib/format";
import { usePermission } from "../shell/me";
import { Endless } from "../ui/Endless";
import { showDone, showProblem } from "../ui/notify";
import { Panel, TableFrame } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";

const nameOf = (letter: DeadLetter): string => `${letter.group} ${letter.topic} ${letter.number}`;

export default function LettersSection() {
  const client = useQueryClient();
  const allowed = usePermission("admin.rebuild");
  const letters = useInfiniteQuery({
    queryKey: ["dead-letters"],
    queryFn: ({ pageParam, signal }) => admin.deadLetters(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: 0,
  });
  const replay = useMutation({
    mutationFn: admin.replayDeadLetter,
    onSuccess: () => showDone("It was handled this time."),
    onError: showProblem,
    onSettled: () => client.invalidateQueries({ queryKey: ["dead-letters"] }),
  });
  const items = letters.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Panel
      title="Dead letters"
      text="Events that a consumer gave up on. The rest went on without them; replaying one hands it in again."
    >
      {letters.isPending && <RowSkeletons />}
      {letters.isError && letters.data === undefined && (
        <Failure error={letters.error} retry={() => void letters.refetch()} />
      )}
      {letters.data !== undefined && items.length === 0 && (
        <Empty icon={IconMailCheck} title="None">
          Every event was handled.
        </Empty>
      )}
      {items.length > 0 && (
        <>
          <TableFrame label="Dead letters">
            <thead>
              <tr>
                <th>Consumer</th>
                <th>Event</th>
                <th>Why</th>
                <th data-number>Attempts</th>
                <th data-number>Given up</th>
                <th>
                  <span className="visually-hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {items.map((letter) => (
                <tr key={nameOf(letter)}>
                  <td>
                    <div className={classes.system}>
                      {letter.group}
                      <span className={classes.summary}>
                        {letter.topic} · {letter.number}
                      </span>
                    </div>
                  </td>
                  <td>
                    <div className={classes.system}>
                      {letter.kind}
                      <span className={classes.summary}>{letter.subject}</span>
                    </div>
                  </td>
                  <td className={classes.mono}>{letter.error}</td>
                  <td data-number>{letter.attempts}</td>
                  <td data-number>{fullTime(letter.buried)}</td>
                  <td data-number>
                    <Button
                      size="compact-xs"
                      variant="default"
                      disabled={allowed !== true}
                      loading={replay.isPending && nameOf(replay.variables) === nameOf(letter)}
                      onClick={() => replay.mutate(letter)}
                    >
                      Replay
                    </Button>
                  </td>
                </tr>
              ))}
            </tbody>
          </TableFrame>
          <Endless
            more={letters.hasNextPage}
            busy={letters.isFetchingNextPage}
            error={letters.isFetchNextPageError ? letters.error : null}
            load={() => void letters.fetchNextPage()}
          />
        </>
      )}
    </Panel>
  );
}
