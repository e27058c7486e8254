import { useInfiniteQuery } from "@tanstack/react-query";
import { lazy, Suspense, useLayoutEffect, useMemo, useRef } from "react";
import { useParams, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import { Composer } from "../feed/Composer";
import { PostCard } from "../feed/PostCard";
import { Endless } from "../ui/Endless";
import { PageHeader } from "../ui/PageHeader";
import { Failure, PostSkeletons } from "../ui/States";
import home from "./Home.module.css";

const HistoryDialog = lazy(() => import("../feed/HistoryDialog"));

export default function PostThread() {
  const { id = "" } = useParams();
  const [parameters, setParameters] = useSearchParams();
  const thread = useInfiniteQuery({
    queryKey: ["thread", id],
    queryFn: ({ pageParam, signal }) => feed.thread(id, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: 15_000,
  });
  const first = thread.data?.pages[0];
  const replies = useMemo(() => thread.data?.pages.flatMap((page) => page.replies) ?? [], [thread.data]);

  // With posts above, begin at the one that the page is about.
  const place = useRef<HTMLDivElement>(null);
  const hasAncestors = (first?.ancestors.length ?? 0) > 0;
  useLayoutEffect(() => {
    if (!hasAncestors || place.current === null) return;
    window.scrollTo({ top: place.current.offsetTop - 56 });
  }, [hasAncestors, id]);

  return (
    <>
      <PageHeader title="Post" back />
      {thread.isPending && <PostSkeletons count={3} />}
      {thread.isError && first === undefined && (
        <Failure error={thread.error} retry={() => void thread.refetch()} />
      )}
      {first !== undefined && (
        <>
          {first.ancestors.map((post, index) => (
            <PostCard key={post.id} post={post} lineAbove={index > 0} lineBelow />
          ))}
          <div ref={place}>
            <PostCard post={first.post} prominent lineAbove={hasAncestors} />
          </div>
          <div className={home.composer}>
            <Composer
              key={id}
              label={`Reply to ${first.post.author.name}`}
              placeholder={`Reply to @${first.post.author.handle}`}
              action="Reply"
              replyTo={first.post.id}
            />
          </div>
          <section aria-label="Replies">
            {replies.map((post) => (
              <PostCard key={post.id} post={{ ...post, kind: post.kind === "reply" ? "post" : post.kind }} />
            ))}
          </section>
          <Endless
            more={thread.hasNextPage}
            busy={thread.isFetchingNextPage}
            error={thread.isFetchNextPageError ? thread.error : null}
            load={() => void thread.fetchNextPage()}
            end={replies.length === 0 ? "No replies yet." : undefined}
          />
        </>
      )}
      {parameters.has("history") && (
        <Suspense fallback={null}>
          <HistoryDialog post={{ id }} close={() => setParameters({}, { replace: true })} />
        </Suspense>
      )}
    </>
  );
}
