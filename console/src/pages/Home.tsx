import { SegmentedControl } from "@mantine/core";
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { IconArrowUp, IconBox, IconSeedling } from "@tabler/icons-react";
import { useEffect } from "react";
import { Link, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import type { HomeOrder } from "../api/feed";
import { liveFeed } from "../api/live";
import { prependHome } from "../feed/cache";
import { Composer } from "../feed/Composer";
import { takeIncoming, useIncoming } from "../feed/incoming";
import { PostList } from "../feed/PostList";
import { PageHeader } from "../ui/PageHeader";
import { Empty } from "../ui/States";
import classes from "./Home.module.css";

const TOP_PX = 60;

export default function Home() {
  const client = useQueryClient();
  const [parameters, setParameters] = useSearchParams();
  const order: HomeOrder = parameters.get("order") === "ranked" ? "ranked" : "latest";

  const home = useInfiniteQuery({
    queryKey: ["home", order],
    queryFn: ({ pageParam, signal }) => feed.home(order, pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    // What is new comes live. Loading it all again would move what one is reading.
    staleTime: order === "latest" ? Infinity : 60_000,
    refetchOnWindowFocus: false,
  });

  const since = home.data?.pages[0]?.since ?? undefined;
  useEffect(() => {
    if (order === "latest") liveFeed.resumeFrom(since);
  }, [order, since]);

  const incoming = useIncoming();
  const showIncoming = () => {
    if (order === "ranked") {
      takeIncoming();
      void client.resetQueries({ queryKey: ["home", "ranked"] });
    } else {
      prependHome(client, "latest", takeIncoming());
    }
    window.scrollTo({ top: 0, behavior: "smooth" });
  };

  // At the top of the page new posts may simply appear; further down they would push away what one is reading.
  const loaded = home.data !== undefined;
  useEffect(() => {
    if (incoming.length === 0 || order !== "latest" || !loaded) return;
    const atTop = window.scrollY < TOP_PX && document.visibilityState === "visible";
    const reading = document.activeElement?.closest("article[data-post]") !== null && document.activeElement !== null;
    if (atTop && !reading) prependHome(client, "latest", takeIncoming());
  }, [incoming, order, loaded, client]);

  return (
    <>
      <PageHeader
        title="Home"
        actions={
          <>
            <SegmentedControl
              size="xs"
              radius="xl"
              aria-label="Order of the posts"
              value={order}
              onChange={(value) => setParameters(value === "ranked" ? { order: "ranked" } : {}, { replace: true })}
              data={[
                { value: "latest", label: "Latest" },
                { value: "ranked", label: "Ranked" },
              ]}
            />
            <Link to="/glass/feed" className={classes.glass ?? ""} title="See how this feed works inside">
              <IconBox size={17} stroke={1.7} aria-hidden="true" />
              <span>Glass box</span>
            </Link>
          </>
        }
      />
      <div className={classes.composer}>
        <Composer label="New post" placeholder="What's happening?" action="Post" />
      </div>
      <div className={classes.pillPlace} aria-live="polite">
        {incoming.length > 0 && (
          <button type="button" data-show-new className={classes.pill} onClick={showIncoming}>
            <IconArrowUp size={15} stroke={2.2} aria-hidden="true" />
            {incoming.length === 1 ? "1 new post" : `${incoming.length} new posts`}
          </button>
        )}
      </div>
      <PostList
        query={home}
        label={order === "latest" ? "Latest posts" : "Ranked posts"}
        end="You have seen it all."
        empty={
          <Empty icon={IconSeedling} title="Nothing here yet">
            Posts of the people you follow appear here. Write the first one, look at the{" "}
            <Link to="/trends">trends</Link>, or press <kbd>/</kbd> to go to somebody.
          </Empty>
        }
      />
    </>
  );
}
