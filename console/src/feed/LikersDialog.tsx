import { Modal } from "@mantine/core";
import { IconHeart } from "@tabler/icons-react";
import { useInfiniteQuery } from "@tanstack/react-query";
import * as feed from "../api/feed";
import type { Post } from "../api/types";
import { Endless } from "../ui/Endless";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import { PersonRow } from "./PersonRow";

export default function LikersDialog({ post, close }: { post: Post; close: () => void }) {
  const likers = useInfiniteQuery({
    queryKey: ["likers", post.id],
    queryFn: ({ pageParam, signal }) => feed.likers(post.id, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: 0,
  });
  const people = likers.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Modal opened onClose={close} title="Liked by" padding="md" closeButtonProps={{ "aria-label": "Close" }}>
      {likers.isPending && <RowSkeletons count={4} />}
      {likers.isError && likers.data === undefined && (
        <Failure error={likers.error} retry={() => void likers.refetch()} />
      )}
      {likers.data !== undefined && people.length === 0 && <Empty icon={IconHeart} title="Nobody so far" />}
      {people.map((person) => (
        <PersonRow key={person.id} person={person} onOpen={close} />
      ))}
      {likers.hasNextPage && (
        <Endless more busy={likers.isFetchingNextPage} error={null} load={() => void likers.fetchNextPage()} />
      )}
    </Modal>
  );
}
