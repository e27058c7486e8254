import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { IconHash } from "@tabler/icons-react";
import { useParams } from "react-router";
import * as feed from "../api/feed";
import { PostList } from "../feed/PostList";
import { useCompose } from "../shell/compose";
import { PageHeader } from "../ui/PageHeader";
import { Empty } from "../ui/States";

export default function Tag() {
  const { tag = "" } = useParams();
  const compose = useCompose();
  const posts = useInfiniteQuery({
    queryKey: ["tag", tag],
    queryFn: ({ pageParam, signal }) => feed.tagPosts(tag, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  return (
    <>
      <PageHeader
        title={`#${tag}`}
        back
        actions={
          <Button size="xs" radius="xl" variant="default" onClick={() => compose({ kind: "post", text: `#${tag} ` })}>
            Post with it
          </Button>
        }
      />
      <PostList
        query={posts}
        label={`Posts with #${tag}`}
        empty={<Empty icon={IconHash} title={`Nobody has used #${tag} yet`} />}
      />
    </>
  );
}
