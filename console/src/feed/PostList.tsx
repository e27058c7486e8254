import type { UseInfiniteQueryResult, InfiniteData } from "@tanstack/react-query";
import { useCallback, useMemo, type ReactNode } from "react";
import type { HomePost, Page } from "../api/types";
import { Endless } from "../ui/Endless";
import { Failure, PostSkeletons } from "../ui/States";
import { PostCard } from "./PostCard";

/** A list of posts that goes on as far as one scrolls, with all that can be the case on the way. */
export function PostList({
  query,
  label,
  empty,
  end = "That is all.",
}: {
  query: UseInfiniteQueryResult<InfiniteData<Page<HomePost>>>;
  label: string;
  empty: ReactNode;
  end?: string;
}) {
  const { data, fetchNextPage, refetch } = query;
  const posts = useMemo(() => {
    const seen = new Set<string>();
    return (data?.pages ?? [])
      .flatMap((page) => page.items)
      .filter((post) => !seen.has(post.id) && Boolean(seen.add(post.id)));
  }, [data]);
  const load = useCallback(() => void fetchNextPage(), [fetchNextPage]);

  if (query.isPending) return <PostSkeletons />;
  if (data === undefined) return <Failure error={query.error} retry={() => void refetch()} />;
  if (posts.length === 0 && !query.hasNextPage) return empty;
  return (
    <>
      <section aria-label={label}>
        {posts.map((post) => (
          <PostCard key={post.id} post={post} />
        ))}
      </section>
      <Endless
        more={query.hasNextPage}
        busy={query.isFetchingNextPage}
        error={query.isFetchNextPageError ? query.error : null}
        load={load}
        end={end}
      />
    </>
  );
}
