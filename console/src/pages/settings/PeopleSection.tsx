import { Button } from "@mantine/core";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import * as feed from "../../api/feed";
import { PersonRow } from "../../feed/PersonRow";
import { showProblem } from "../../ui/notify";
import { Failure, RowSkeletons } from "../../ui/States";
import { Section } from "./Section";
import classes from "./Section.module.css";

export function PeopleSection() {
  return (
    <>
      <List relation="mutes" title="Muted" text="Their posts don't appear in your timelines. They don't know." undo="Unmute" />
      <List
        relation="blocks"
        title="Blocked"
        text="You don't see each other's posts, and they can't follow you or answer you."
        undo="Unblock"
      />
    </>
  );
}

function List({
  relation,
  title,
  text,
  undo,
}: {
  relation: "mutes" | "blocks";
  title: string;
  text: string;
  undo: string;
}) {
  const client = useQueryClient();
  const list = useInfiniteQuery({
    queryKey: [relation],
    queryFn: ({ pageParam, signal }) => feed.relationList(relation, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: 0,
  });
  const release = useMutation({
    mutationFn: (handle: string) => feed.setRelation(relation, handle, false),
    onSuccess: (_, handle) => {
      void client.invalidateQueries({ queryKey: [relation] });
      void client.invalidateQueries({ queryKey: ["profile", handle] });
      void client.invalidateQueries({ queryKey: ["home"] });
    },
    onError: showProblem,
  });
  const people = list.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Section title={title} text={text}>
      {list.isPending && <RowSkeletons count={2} height={48} />}
      {list.isError && list.data === undefined && <Failure error={list.error} retry={() => void list.refetch()} />}
      {list.data !== undefined && people.length === 0 && <span className={classes.detail}>Nobody.</span>}
      <div style={{ marginInline: -20 }}>
        {people.map((person) => (
          <PersonRow key={person.id} person={person}>
            <Button
              size="xs"
              variant="default"
              loading={release.isPending && release.variables === person.handle}
              onClick={() => release.mutate(person.handle)}
            >
              {undo}
            </Button>
          </PersonRow>
        ))}
      </div>
      {list.hasNextPage && (
        <div>
          <Button size="xs" variant="default" loading={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
            More
          </Button>
        </div>
      )}
    </Section>
  );
}
