import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import {
  IconAt,
  IconBell,
  IconHeartFilled,
  IconMessageCircle,
  IconQuote,
  IconRepeat,
  IconUserPlus,
  type Icon,
} from "@tabler/icons-react";
import { useEffect } from "react";
import { Link } from "react-router";
import * as feed from "../api/feed";
import type { Notification, NotificationKind } from "../api/types";
import { Age } from "../ui/Age";
import { Avatar } from "../ui/Avatar";
import { Endless } from "../ui/Endless";
import { PageHeader } from "../ui/PageHeader";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Notifications.module.css";

const kinds: Record<NotificationKind, { icon: Icon; says: string; colour: string }> = {
  follow: { icon: IconUserPlus, says: "followed you", colour: "var(--accent-text)" },
  like: { icon: IconHeartFilled, says: "liked your post", colour: "var(--like)" },
  mention: { icon: IconAt, says: "mentioned you", colour: "var(--accent-text)" },
  reply: { icon: IconMessageCircle, says: "replied to you", colour: "var(--accent-text)" },
  repost: { icon: IconRepeat, says: "reposted your post", colour: "var(--repost)" },
  quote: { icon: IconQuote, says: "quoted your post", colour: "var(--accent-text)" },
};

export default function NotificationsPage() {
  const client = useQueryClient();
  const list = useInfiniteQuery({
    queryKey: ["notifications"],
    queryFn: ({ pageParam, signal }) => feed.notifications(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: 0,
  });
  const items = list.data?.pages.flatMap((page) => page.items) ?? [];
  const newest = items[0]?.id;
  const anyUnread = items.some((item) => !item.read);

  // Seen is read. The marks stay for this visit, so that one can tell what was new.
  useEffect(() => {
    if (newest === undefined || !anyUnread) return;
    const timer = window.setTimeout(() => {
      feed.markRead(newest).then(
        ({ unread }) => client.setQueryData<number>(["unread"], unread),
        () => undefined,
      );
    }, 600);
    return () => window.clearTimeout(timer);
  }, [newest, anyUnread, client]);

  return (
    <>
      <PageHeader title="Notifications" />
      {list.isPending && <RowSkeletons count={7} height={56} />}
      {list.isError && list.data === undefined && <Failure error={list.error} retry={() => void list.refetch()} />}
      {list.data !== undefined && items.length === 0 && (
        <Empty icon={IconBell} title="Nothing yet">
          Follows, likes, replies and mentions of you appear here.
        </Empty>
      )}
      <ol className={classes.list}>
        {items.map((item) => (
          <Row key={item.id} item={item} />
        ))}
      </ol>
      {items.length > 0 && (
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

function Row({ item }: { item: Notification }) {
  const { icon: Mark, says, colour } = kinds[item.kind];
  const target = item.post === undefined || item.post === null ? `/u/${item.actor.handle}` : `/post/${item.post.id}`;
  return (
    <li>
      <Link to={target} className={classes.row ?? ""} data-unread={!item.read || undefined}>
        <Mark size={20} stroke={1.8} style={{ color: colour }} aria-hidden="true" />
        <Avatar author={item.actor} size={36} />
        <span className={classes.body}>
          <span className={classes.line}>
            <strong>{item.actor.name}</strong> {says}
            <span className={classes.age}>
              <Age time={item.time} />
            </span>
            {!item.read && <span className="visually-hidden">(unread)</span>}
          </span>
          {item.post !== undefined && item.post !== null && <span className={classes.text}>{item.post.text}</span>}
        </span>
      </Link>
    </li>
  );
}
