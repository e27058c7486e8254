import { Button, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { IconArrowRight, IconCheck, IconRoute } from "@tabler/icons-react";
import { useState, type ReactNode } from "react";
import { Link, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import { inspectPost } from "../api/inspect";
import { sentence } from "../api/problem";
import type { FeedInspection, Post, PostInspection } from "../api/types";
import { fullNumber } from "../lib/format";
import { Age } from "../ui/Age";
import { Avatar } from "../ui/Avatar";
import { Panel } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Glass.module.css";

/** Somebody's posts; or those of one's home, or of what is talked about most when that is empty. */
async function recentPosts(author: string | null, signal: AbortSignal): Promise<Post[]> {
  const originals = (items: Post[]) => {
    const posts = items.map((post) => post.repostOf ?? post);
    return [...new Map(posts.map((post) => [post.id, post])).values()].slice(0, 12);
  };
  if (author !== null) return originals((await feed.userPosts(author, true, undefined, signal)).items);
  const home = originals((await feed.home("latest", undefined, signal)).items);
  if (home.length > 0) return home;
  const tag = (await feed.trends("7d", 1, signal)).items[0]?.tag;
  return tag === undefined ? [] : originals((await feed.tagPosts(tag, undefined, signal)).items);
}

/** Pick a post and see where it went, and how far its fan-out is. */
export function PostJourney({ inside }: { inside: FeedInspection }) {
  const [parameters, setParameters] = useSearchParams();
  const [typed, setTyped] = useState("");
  const [author, setAuthor] = useState<string | null>(null);
  const recent = useQuery({
    queryKey: ["glass-recent", author],
    queryFn: ({ signal }) => recentPosts(author, signal),
    refetchInterval: 3000,
    staleTime: 0,
    meta: { quiet: true },
  });
  const posts = recent.data ?? [];
  const chosen = parameters.get("post") ?? posts[0]?.id ?? null;
  const choose = (id: string) =>
    setParameters((before) => {
      before.set("post", id);
      return before;
    }, { replace: true, preventScrollReset: true });

  return (
    <Panel
      title="Where a post goes"
      text="An author's post enters the log in the same commit as its row. The fan-out group reads it there and writes it into followers' timelines."
      actions={
        <form
          className={classes.pick}
          onSubmit={(event) => {
            event.preventDefault();
            const wanted = typed.trim().replace(/^@/, "").toLowerCase();
            if (/^\d{6,}$/.test(wanted)) choose(wanted);
            else setAuthor(wanted === "" ? null : wanted);
          }}
        >
          <TextInput
            size="xs"
            aria-label="A post's number or a person's handle"
            placeholder="A post's number, or @handle"
            autoCapitalize="none"
            spellCheck={false}
            value={typed}
            onChange={(event) => setTyped(event.currentTarget.value)}
          />
          <Button size="xs" variant="default" type="submit">
            Look
          </Button>
        </form>
      }
    >
      <div className={classes.journey}>
        <div className={classes.recent} role="group" aria-label="Recent posts">
          {recent.isPending && <RowSkeletons count={4} />}
          {recent.isError && recent.data === undefined && <p className={classes.hint}>{sentence(recent.error)}</p>}
          {posts.map((post) => (
            <RecentPost key={post.id} post={post} chosen={post.id === chosen} choose={choose} />
          ))}
          {recent.data !== undefined && posts.length === 0 && (
            <p className={classes.hint}>
              {author === null ? "There are no posts yet. Write one, and it stands here." : `@${author} has not posted yet.`}
            </p>
          )}
        </div>
        <div className={classes.stage}>
          {chosen === null ? (
            <Empty icon={IconRoute} title="Pick a post">
              Its way is shown here.
            </Empty>
          ) : (
            <Journey key={chosen} id={chosen} inside={inside} />
          )}
        </div>
      </div>
    </Panel>
  );
}

function RecentPost({ post, chosen, choose }: { post: Post; chosen: boolean; choose: (id: string) => void }) {
  return (
    <button type="button" className={classes.recentPost} aria-pressed={chosen} onClick={() => choose(post.id)}>
      <Avatar author={post.author} size={24} />
      <span className={classes.recentText}>{post.text}</span>
      <span className={classes.recentAge}>
        <Age time={post.created} />
      </span>
    </button>
  );
}

function Journey({ id, inside }: { id: string; inside: FeedInspection }) {
  const inspect = useQuery({
    queryKey: ["inspect-post", id],
    queryFn: ({ signal }) => inspectPost(id, signal),
    refetchInterval: (query) => (query.state.data?.pending === false ? 3000 : 400),
    staleTime: 0,
    gcTime: 0,
    meta: { quiet: true },
  });
  // The inspection knows ids only; what the author is called stands in the post.
  const post = useQuery({
    queryKey: ["post", id],
    queryFn: async ({ signal }) => (await feed.post(id, signal)).body,
    meta: { quiet: true },
  });
  if (inspect.data === undefined) {
    return inspect.isError ? <Failure error={inspect.error} /> : <RowSkeletons count={3} height={70} />;
  }
  const journey = inspect.data;
  const author = post.data?.author;
  return (
    <div data-testid="journey" data-pending={journey.pending}>
      <div className={classes.stages}>
        <Stage name="Author">
          <div className={classes.author}>
            {author === undefined ? (
              <span className={classes.mono}>{journey.author}</span>
            ) : (
              <>
                <Avatar author={author} size={44} />
                <Link to={`/u/${author.handle}`}>@{author.handle}</Link>
              </>
            )}
            <span className={classes.hint}>{fullNumber(journey.followers)} followers</span>
          </div>
        </Stage>
        <Arrow done />
        <Stage name="Log">
          <LogLanes journey={journey} inside={inside} />
        </Stage>
        <Arrow done={!journey.pending} />
        <Stage name="Fan-out">
          <Progress journey={journey} />
        </Stage>
        <Arrow done={!journey.pending} />
        <Stage name="Timelines">
          <Sample journey={journey} />
        </Stage>
      </div>
      <p className={classes.says} role="status">
        {sentenceOf(journey)}
      </p>
    </div>
  );
}

function sentenceOf(journey: PostInspection): string {
  const { tier, followers, pushed, pending } = journey;
  if (tier === "pull") {
    return `Its author has so many followers (${fullNumber(followers)}) that it is written to nobody: each of them reads it from the author when they open their home.`;
  }
  if (pending && followers === 0) return "It waits in the log for the fan-out to come to it.";
  if (pending) return `On its way: ${fullNumber(pushed)} of ${fullNumber(followers)} timelines have it.`;
  if (tier === "active") {
    return `Written to the ${fullNumber(pushed)} followers who were active lately; the other ${fullNumber(Math.max(0, followers - pushed))} read it from the author.`;
  }
  return followers === 0 ? "Nobody follows its author yet, so it is in the author's own timeline only." : `In all ${fullNumber(pushed)} timelines.`;
}

function Stage({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className={classes.box}>
      <div className={classes.boxName}>{name}</div>
      {children}
    </div>
  );
}

function Arrow({ done }: { done: boolean }) {
  return (
    <span className={classes.arrow} data-done={done || undefined} aria-hidden="true">
      <IconArrowRight size={20} stroke={1.8} />
    </span>
  );
}

const CELLS = 9;
const CELL = 11;

/** The topic's partitions; in the post's own, the events around it and how far the group has read. */
function LogLanes({ journey, inside }: { journey: PostInspection; inside: FeedInspection }) {
  const { position, groupAt } = journey;
  const offset = position.offset ?? null;
  const group = inside.consumers.find((consumer) => consumer.group.includes("fanout")) ?? inside.consumers[0];
  const count = Math.max(group?.partitions.length ?? 0, position.partition + 1);
  const around = Math.min(count, 7);
  const firstLane = Math.max(0, Math.min(position.partition - Math.floor(around / 2), count - around));
  const lanes = Array.from({ length: around }, (_, index) => firstLane + index);
  const firstCell = Math.max(0, (offset ?? groupAt) - Math.floor(CELLS / 2));
  const width = 22 + CELLS * (CELL + 2);
  return (
    <div className={classes.log}>
      <svg
        viewBox={`0 0 ${width} ${around * 15}`}
        className={classes.lanes}
        role="img"
        aria-label={`Partition ${position.partition}, ${offset === null ? "waiting" : `offset ${offset}`}`}
      >
        {lanes.map((lane, row) => {
          const own = lane === position.partition;
          const y = row * 15 + 2;
          return (
            <g key={lane}>
              <text x={16} y={y + 9} textAnchor="end" className={own ? classes.laneNameOwn : classes.laneName}>
                {lane}
              </text>
              {own ? (
                Array.from({ length: CELLS }, (_, index) => {
                  const here = firstCell + index;
                  return (
                    <rect
                      key={here}
                      x={22 + index * (CELL + 2)}
                      y={y}
                      width={CELL}
                      height={CELL}
                      rx={2.5}
                      className={here === offset ? classes.cellPost : here < groupAt ? classes.cellRead : classes.cell}
                    >
                      <title>{`offset ${here}${here === offset ? ": this post" : here < groupAt ? ", handled" : ""}`}</title>
                    </rect>
                  );
                })
              ) : (
                <rect x={22} y={y + 4} width={width - 24} height={3} rx={1.5} className={classes.lane} />
              )}
            </g>
          );
        })}
      </svg>
      <span className={classes.hint}>
        partition {position.partition}, {offset === null ? "waiting" : `offset ${fullNumber(offset)}`}
      </span>
    </div>
  );
}

const RADIUS = 30;
const ROUND = 2 * Math.PI * RADIUS;

function Progress({ journey }: { journey: PostInspection }) {
  const { followers, pushed, pending, tier } = journey;
  const part = tier === "pull" ? 0 : !pending ? 1 : followers === 0 ? 0 : Math.min(1, pushed / followers);
  return (
    <div className={classes.progress}>
      <svg viewBox="0 0 72 72" width="76" height="76" role="img" aria-label={`${fullNumber(pushed)} timelines written`}>
        <circle cx="36" cy="36" r={RADIUS} className={classes.ring} />
        <circle
          cx="36"
          cy="36"
          r={RADIUS}
          className={classes.ringPart}
          strokeDasharray={`${part * ROUND} ${ROUND}`}
          transform="rotate(-90 36 36)"
        />
        {!pending && tier !== "pull" ? (
          <g transform="translate(24 24)" className={classes.ringTick}>
            <IconCheck size={24} stroke={2.2} />
          </g>
        ) : (
          <text x="36" y="40.5" textAnchor="middle" className={classes.ringText}>
            {tier === "pull" ? "–" : `${Math.floor(part * 100)}%`}
          </text>
        )}
      </svg>
      <span className={classes.tierName} data-tier={tier}>
        {tier}
      </span>
      <span className={classes.hint}>{fullNumber(pushed)} written</span>
    </div>
  );
}

/** Some of the followers, and whether the post stands in their timeline by now. */
function Sample({ journey }: { journey: PostInspection }) {
  const { sample } = journey;
  if (sample.length === 0) return <span className={classes.hint}>no followers</span>;
  const present = sample.filter((follower) => follower.present).length;
  const columns = Math.min(sample.length, 6);
  return (
    <div className={classes.log}>
      <svg
        viewBox={`0 0 ${columns * 20} ${Math.ceil(sample.length / columns) * 20}`}
        style={{ width: columns * 20 }}
        className={classes.sample}
        role="img"
        aria-label={`${present} of ${sample.length} followers looked at have it`}
      >
        {sample.map((follower, index) => (
          <circle
            key={follower.handle}
            cx={(index % columns) * 20 + 10}
            cy={Math.floor(index / columns) * 20 + 10}
            r={7}
            className={follower.present ? classes.has : classes.hasNot}
          >
            <title>{`@${follower.handle}: ${follower.present ? "has it" : "has it not"}`}</title>
          </circle>
        ))}
      </svg>
      <span className={classes.hint}>
        {present} of {sample.length} looked at
      </span>
    </div>
  );
}
