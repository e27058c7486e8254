import { useQuery } from "@tanstack/react-query";
import { inspectFeed } from "../api/inspect";
import type { FeedInspect } from "../api/types";
import { fullNumber, perSecond } from "../lib/format";
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
    refetchInterval: 1000,
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
          <Caches caches={inside.data.caches} />
        </div>
      )}
    </>
  );
}

function FanoutFigures({ inside }: { inside: FeedInspect }) {
  const waiting = inside.consumers.reduce((sum, consumer) => sum + consumer.lag, 0);
  return (
    <Figures>
      <Figure name="Posts fanned out" value={fullNumber(inside.fanout.postsHandled)} note="since the start" />
      <Figure name="Timeline entries written" value={fullNumber(inside.fanout.entriesWritten)} note="since the start" />
      <Figure name="Entries a second" value={perSecond(inside.fanout.perSecond)} />
      <Figure name="Events waiting" value={fullNumber(waiting)} note={`in ${inside.consumers.length} consumer groups`} />
      <Figure name="A timeline keeps" value={fullNumber(inside.timelineEntries)} note="entries, then it pulls" />
    </Figures>
  );
}

/** Which authors are pushed to their followers, and which are pulled when somebody reads. */
function Tiers({ inside }: { inside: FeedInspect }) {
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
function Queues({ inside }: { inside: FeedInspect }) {
  const most = Math.max(
    ...inside.consumers.flatMap((consumer) => consumer.partitions.map((partition) => partition.lag)),
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
                const height = partition.lag === 0 ? 0 : Math.max(2, (partition.lag / most) * 42);
                return (
                  <g key={partition.partition}>
                    <title>{`partition ${partition.partition}: ${partition.lag} waiting, at ${partition.committed} of ${partition.head}`}</title>
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

/** `hitRate` as it is called in the program, for people: `hit rate`. */
function words(name: string): string {
  return name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

function figureText(name: string, value: unknown): string {
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : String(value);
  if (/rate|share/i.test(name)) return `${(value * 100).toFixed(1)}%`;
  return fullNumber(value);
}

/** Whatever the caches say of themselves. */
function Caches({ caches }: { caches: Record<string, unknown> }) {
  const entries = Object.entries(caches);
  if (entries.length === 0) return null;
  return (
    <Panel title="Caches" text="Rows that are read often are kept in memory; the log says when one is out of date.">
      <div className={classes.queues}>
        {entries.map(([name, figures]) => (
          <div key={name} className={classes.queue}>
            <div className={classes.queueName}>{words(name)}</div>
            {typeof figures === "object" && figures !== null ? (
              <dl className={classes.cache}>
                {Object.entries(figures).map(([figure, value]) => (
                  <div key={figure}>
                    <dt>{words(figure)}</dt>
                    <dd className="tabular">{figureText(figure, value)}</dd>
                  </div>
                ))}
              </dl>
            ) : (
              <div className="tabular">{figureText(name, figures)}</div>
            )}
          </div>
        ))}
      </div>
    </Panel>
  );
}
