import { useQuery } from "@tanstack/react-query";
import { inspectFeed } from "../api/inspect";
import type { FeedInspection } from "../api/types";
import { bytes, fullNumber, percent, perSecond } from "../lib/format";
import { Figure, Figures } from "../ui/Figure";
import { PageHeader } from "../ui/PageHeader";
import { Panel } from "../ui/Panel";
import { Failure, RowSkeletons } from "../ui/States";
import classes from "./Glass.module.css";
import { PostJourney } from "./PostJourney";
import { TimelineInside } from "./TimelineInside";

/** Feed, from inside: nothing here is drawn from imagination, all of it comes from the running system. */
export default function FeedGlass() {
  const inside = useQuery({
    queryKey: ["inspect"],
    queryFn: ({ signal }) => inspectFeed(signal),
    refetchInterval: 1500,
    staleTime: 0,
    gcTime: 0,
    meta: { quiet: true },
  });
  return (
    <>
      <PageHeader title="Glass box: feed" subtitle="A post's way into timelines, as it happens in this node" />
      {inside.isPending && <RowSkeletons count={5} height={72} />}
      {inside.isError && inside.data === undefined && (
        <Failure error={inside.error} retry={() => void inside.refetch()} />
      )}
      {inside.data !== undefined && (
        <div className={classes.page}>
          <FanoutFigures inside={inside.data} />
          <PostJourney inside={inside.data} />
          <TimelineInside />
          <Tiers inside={inside.data} />
          <Queues inside={inside.data} />
          <Caches inside={inside.data} />
        </div>
      )}
    </>
  );
}

function FanoutFigures({ inside }: { inside: FeedInspection }) {
  const waiting = inside.consumers.reduce((sum, consumer) => sum + consumer.lag, 0);
  return (
    <Figures>
      <Figure name="Posts fanned out" value={fullNumber(inside.fanout.postsHandled)} note="since the start" />
      <Figure name="Timeline entries written" value={fullNumber(inside.fanout.entriesWritten)} note="since the start" />
      <Figure name="Entries a second" value={perSecond(inside.fanout.perSecond)} note="since the start" />
      <Figure name="Events waiting" value={fullNumber(waiting)} note={`in ${inside.consumers.length} consumer groups`} />
    </Figures>
  );
}

/** Which authors are pushed to their followers, and which are pulled when somebody reads. */
function Tiers({ inside }: { inside: FeedInspection }) {
  const { tiers, authorsByTier } = inside;
  const rows = [
    {
      name: "push",
      says: `below ${fullNumber(tiers.pushBelow)} followers: written to every follower's timeline`,
      authors: authorsByTier.push,
    },
    {
      name: "active",
      says: `below ${fullNumber(tiers.activeBelow)}: written to those active in the last ${tiers.activeDays} days, pulled for the rest`,
      authors: authorsByTier.active,
    },
    { name: "pull", says: "above: written to nobody, read with each timeline", authors: authorsByTier.pull },
  ];
  const most = Math.max(...rows.map((row) => row.authors), 1);
  return (
    <Panel
      title="Tiers"
      text="Writing one post to a million timelines is dear, and so is reading a thousand authors for one page. The number of followers decides which is done."
    >
      <dl className={classes.tiers}>
        {rows.map((row) => (
          <div key={row.name} className={classes.tier}>
            <dt>
              <span className={classes.tierName} data-tier={row.name}>
                {row.name}
              </span>
              <span className={classes.tierSays}>{row.says}</span>
            </dt>
            <dd>
              <span className={classes.tierTrack} aria-hidden="true">
                <span
                  className={classes.tierBar}
                  data-tier={row.name}
                  style={{ width: `${row.authors === 0 ? 0 : Math.max(0.5, (row.authors / most) * 100)}%` }}
                />
              </span>
              <span className="tabular">
                {fullNumber(row.authors)} {row.authors === 1 ? "author" : "authors"}
              </span>
            </dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}

/** What each consumer group has yet to read, partition by partition. */
function Queues({ inside }: { inside: FeedInspection }) {
  const most = Math.max(
    ...inside.consumers.flatMap((consumer) => consumer.partitions.map((partition) => partition.next - partition.committed)),
    10,
  );
  return (
    <Panel title="Queues" text="Each column is a partition of the topic; its height is what the group has yet to read of it.">
      <div className={classes.queues}>
        {inside.consumers.map((consumer) => (
          <div key={`${consumer.group} ${consumer.topic}`} className={classes.queue}>
            <div className={classes.queueName}>{consumer.group}</div>
            <div className={classes.queueTopic}>reads {consumer.topic}</div>
            <svg
              viewBox={`0 0 ${Math.max(1, consumer.partitions.length) * 14} 46`}
              className={classes.columns}
              role="img"
              aria-label={`${consumer.group}: ${consumer.lag} events wait in ${consumer.partitions.length} partitions`}
            >
              {consumer.partitions.map((partition, index) => {
                const waiting = partition.next - partition.committed;
                const height = waiting === 0 ? 0 : Math.max(2, (waiting / most) * 42);
                return (
                  <g key={partition.partition}>
                    <title>{`partition ${partition.partition}: ${waiting} waiting, at ${partition.committed} of ${partition.next}`}</title>
                    <rect x={index * 14 + 1} y={2} width={12} height={42} rx={3} className={classes.columnTrack} />
                    <rect x={index * 14 + 1} y={44 - height} width={12} height={height} rx={2} className={classes.columnBar} />
                  </g>
                );
              })}
            </svg>
            <div className={classes.queueLag}>{consumer.lag === 0 ? "caught up" : `${fullNumber(consumer.lag)} waiting`}</div>
          </div>
        ))}
      </div>
    </Panel>
  );
}

function Caches({ inside }: { inside: FeedInspection }) {
  const { cards, cardBytes, cardHits, cardMisses, readers } = inside.caches;
  const asked = cardHits + cardMisses;
  return (
    <Panel
      title="Caches"
      text="Posts are kept in memory as the bytes that are served; of recent readers, whom they follow, block and mute."
    >
      <Figures>
        <Figure name="Posts in memory" value={fullNumber(cards)} note={bytes(cardBytes)} />
        <Figure
          name="Found there"
          value={asked === 0 ? "–" : percent(cardHits / asked)}
          note={`${fullNumber(cardMisses)} were read from the store`}
        />
        <Figure name="Readers in memory" value={fullNumber(readers)} />
      </Figures>
    </Panel>
  );
}
