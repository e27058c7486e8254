import { useInfiniteQuery } from "@tanstack/react-query";
import { IconBookmark } from "@tabler/icons-react";
import * as feed from "../api/feed";
import { PostList } from "../feed/PostList";
import { PageHeader } from "../ui/PageHeader";
import { Empty } from "../ui/States";

export default function Bookmarks() {
  const posts = useInfiniteQuery({
    queryKey: ["bookmarks"],
    queryFn: ({ pageParam, signal }) => feed.bookmarks(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  return (
    <>
      <PageHeader title="Bookmarks" subtitle="Only you see these" />
      <PostList
        query={posts}
        label="Bookmarked posts"
        empty={
          <Empty icon={IconBookmark} title="No bookmarks yet">
            Keep a post for later with the ribbon beneath it, or with the key <kbd>b</kbd>.
          </Empty>
        }
      />
    </>
  );
}
