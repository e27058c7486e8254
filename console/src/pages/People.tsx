import { useInfiniteQuery, useQueryClient, type InfiniteData } from "@tanstack/react-query";
import { IconUsers } from "@tabler/icons-react";
import { useParams } from "react-router";
import * as feed from "../api/feed";
import type { PersonItem, Page } from "../api/types";
import { FollowButton } from "../feed/FollowButton";
import { PersonRow } from "../feed/PersonRow";
import { useAccount } from "../lib/hooks";
import { Endless } from "../ui/Endless";
import { PageHeader } from "../ui/PageHeader";
import { Empty, Failure, RowSkeletons } from "../ui/States";

/** Who follows somebody, or whom they follow. */
export default function People() {
  const { handle = "", side: wanted } = useParams();
  const side = wanted === "following" ? "following" : "followers";
  const client = useQueryClient();
  const self = useAccount();
  const key = ["people", handle, side];
  const list = useInfiniteQuery({
    queryKey: key,
    queryFn: ({ pageParam, signal }) => feed.people(handle, side, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const people = list.data?.pages.flatMap((page) => page.items) ?? [];

  const setFollowing = (id: string, following: boolean) =>
    client.setQueryData<InfiniteData<Page<PersonItem>>>(key, (data) =>
      data === undefined
        ? data
        : {
            ...data,
            pages: data.pages.map((page) => ({
              ...page,
              items: page.items.map((person) => (person.id === id ? { ...person, following } : person)),
            })),
          },
    );

  return (
    <>
      <PageHeader title={side === "followers" ? "Followers" : "Following"} subtitle={`@${handle}`} back />
      {list.isPending && <RowSkeletons count={8} height={48} />}
      {list.isError && list.data === undefined && <Failure error={list.error} retry={() => void list.refetch()} />}
      {list.data !== undefined && people.length === 0 && <Empty icon={IconUsers} title="Nobody yet" />}
      {people.map((person) => (
        <PersonRow key={person.id} person={person}>
          {person.id !== self.id && (
            <FollowButton
              person={person}
              following={person.following ?? false}
              onChange={(following) => setFollowing(person.id, following)}
            />
          )}
        </PersonRow>
      ))}
      {people.length > 0 && (
        <Endless
          more={list.hasNextPage}
          busy={list.isFetchingNextPage}
          error={list.isFetchNextPageError ? list.error : null}
          load={() => void list.fetchNextPage()}
        />
      )}
    </>
  );
}
