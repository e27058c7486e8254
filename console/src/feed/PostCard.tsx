import { useQueryClient } from "@tanstack/react-query";
import {
  IconBookmark,
  IconBookmarkFilled,
  IconDots,
  IconHeart,
  IconHeartFilled,
  IconMessageCircle,
  IconQuote,
  IconRepeat,
} from "@tabler/icons-react";
import { memo, type KeyboardEvent, type MouseEvent, type ReactNode } from "react";
import { Link, useNavigate } from "react-router";
import type { Author, Explanation, HomePost, Post } from "../api/types";
import { fullTime, shortNumber } from "../lib/format";
import { useCompose } from "../shell/compose";
import { Age } from "../ui/Age";
import { Avatar } from "../ui/Avatar";
import { toggle, type ToggleKind } from "./actions";
import { ExplainButton } from "./ExplainButton";
import classes from "./Post.module.css";
import { PostMenu } from "./PostMenu";
import { RichText } from "./RichText";

/** Where a click means the card's own post, and not something inside it. */
function isPlainClick(event: MouseEvent | KeyboardEvent): boolean {
  if (!(event.target instanceof HTMLElement)) return false;
  if (event.target.closest("a, button, input, textarea, [role='dialog'], [role='menu']") !== null) return false;
  return (window.getSelection()?.toString() ?? "") === "";
}

export function AuthorLine({ author, linked = true }: { author: Author; linked?: boolean }) {
  const names = (
    <>
      <span className={classes.name}>{author.name}</span> <span className={classes.handle}>@{author.handle}</span>
    </>
  );
  if (!linked) return <span className={classes.author}>{names}</span>;
  return (
    <Link to={`/u/${author.handle}`} className={classes.author ?? ""}>
      {names}
    </Link>
  );
}

/** A post inside another one. */
export function QuotedPost({ post }: { post: Post }) {
  return (
    <Link to={`/post/${post.id}`} className={classes.quote ?? ""} aria-label={`Quoted post by ${post.author.name}`}>
      <span className={classes.quoteHead}>
        <Avatar author={post.author} size={20} />
        <AuthorLine author={post.author} linked={false} />
        <span className={classes.age}>
          <Age time={post.created} />
        </span>
      </span>
      <span className={classes.quoteText}>{post.text}</span>
    </Link>
  );
}

interface PostCardProps {
  post: HomePost;
  /** The post that its page is about: larger, with the whole time. */
  prominent?: boolean;
  /** Draws the line of a thread up to the post above, and down to the one below. */
  lineAbove?: boolean;
  lineBelow?: boolean;
}

export const PostCard = memo(function PostCard(props: PostCardProps) {
  const { post } = props;
  if (post.kind === "repost" && post.repostOf !== undefined) {
    return (
      <Card
        {...props}
        post={post.repostOf}
        explain={post.explain}
        reason={
          <Link to={`/u/${post.author.handle}`} className={classes.reason ?? ""}>
            <IconRepeat size={15} stroke={2} aria-hidden="true" />
            {post.author.name} reposted
          </Link>
        }
      />
    );
  }
  return <Card {...props} explain={post.explain} />;
});

function Card({
  post,
  prominent = false,
  lineAbove = false,
  lineBelow = false,
  reason,
  explain,
}: Omit<PostCardProps, "post"> & { post: Post; reason?: ReactNode; explain: Explanation | undefined }) {
  const navigate = useNavigate();
  const open = () => {
    if (!prominent) void navigate(`/post/${post.id}`);
  };

  const onKeyDown = (event: KeyboardEvent<HTMLElement>) => {
    if (event.key === "Enter" && event.target === event.currentTarget) open();
  };

  return (
    <article
      data-post={post.id}
      data-prominent={prominent || undefined}
      tabIndex={0}
      aria-label={`${post.author.name}: ${post.text.slice(0, 80)}`}
      className={classes.card}
      onClick={(event) => {
        if (isPlainClick(event)) open();
      }}
      onKeyDown={onKeyDown}
    >
      {reason !== undefined && <div className={classes.reasonRow}>{reason}</div>}
      <div className={classes.side} data-above={lineAbove || undefined} data-below={lineBelow || undefined}>
        <Avatar author={post.author} size={40} />
      </div>
      <div className={classes.body}>
        <div className={classes.head}>
          <AuthorLine author={post.author} />
          {!prominent && (
            <Link to={`/post/${post.id}`} className={classes.age ?? ""}>
              <Age time={post.created} />
            </Link>
          )}
          {post.edited !== undefined && post.edited !== null && <EditedMark post={post} />}
        </div>
        {post.kind === "reply" && !lineAbove && post.replyTo !== undefined && (
          <Link to={`/post/${post.replyTo}`} className={classes.replyNote ?? ""}>
            In reply to a post
          </Link>
        )}
        <p className={classes.text}>
          <RichText post={post} />
        </p>
        {post.quoteOf !== undefined && post.quoteOf !== null && <QuotedPost post={post.quoteOf} />}
        {post.quoteGone === true && <div className={classes.gone}>The quoted post was deleted.</div>}
        {prominent && (
          <div className={classes.exactly}>
            <time dateTime={post.created}>{fullTime(post.created)}</time>
          </div>
        )}
        <Actions post={post} explain={explain} />
      </div>
    </article>
  );
}

function EditedMark({ post }: { post: Post }) {
  return (
    <Link to={`/post/${post.id}?history`} className={classes.edited ?? ""} title="See what it was before">
      edited
    </Link>
  );
}

function Actions({ post, explain }: { post: Post; explain: Explanation | undefined }) {
  const client = useQueryClient();
  const compose = useCompose();
  const viewer = post.viewer;

  // The second click of a double click is a slip of the finger, not a change of mind.
  const on = (kind: ToggleKind) => (event: MouseEvent) => {
    if (event.detail <= 1) void toggle(client, post, kind);
  };

  return (
    <div className={classes.actions}>
      <button
        type="button"
        data-key="r"
        className={classes.action}
        aria-label={`Reply, ${post.counts.replies} so far`}
        title="Reply (r)"
        onClick={() => compose({ kind: "reply", to: post })}
      >
        <IconMessageCircle size={18} stroke={1.7} aria-hidden="true" />
        <Count value={post.counts.replies} />
      </button>
      <button
        type="button"
        data-key="t"
        data-kind="repost"
        className={classes.action}
        aria-pressed={viewer?.reposted ?? false}
        aria-label={`Repost, ${post.counts.reposts} so far`}
        title="Repost (t)"
        onClick={on("repost")}
      >
        <IconRepeat size={18} stroke={viewer?.reposted ? 2.3 : 1.7} aria-hidden="true" />
        <Count value={post.counts.reposts} />
      </button>
      <button
        type="button"
        data-key="q"
        className={classes.action}
        aria-label={`Quote, ${post.counts.quotes} so far`}
        title="Quote (q)"
        onClick={() => compose({ kind: "quote", of: post })}
      >
        <IconQuote size={18} stroke={1.7} aria-hidden="true" />
        <Count value={post.counts.quotes} />
      </button>
      <button
        type="button"
        data-key="l"
        data-kind="like"
        className={classes.action}
        aria-pressed={viewer?.liked ?? false}
        aria-label={`Like, ${post.counts.likes} so far`}
        title="Like (l)"
        onClick={on("like")}
      >
        {viewer?.liked ? (
          <IconHeartFilled size={18} aria-hidden="true" />
        ) : (
          <IconHeart size={18} stroke={1.7} aria-hidden="true" />
        )}
        <Count value={post.counts.likes} />
      </button>
      <span className={classes.actionsEnd}>
        {explain !== undefined && explain !== null && <ExplainButton explain={explain} />}
        <button
          type="button"
          data-key="b"
          data-kind="bookmark"
          className={classes.action}
          aria-pressed={viewer?.bookmarked ?? false}
          aria-label="Bookmark"
          title="Bookmark (b)"
          onClick={on("bookmark")}
        >
          {viewer?.bookmarked ? (
            <IconBookmarkFilled size={18} aria-hidden="true" />
          ) : (
            <IconBookmark size={18} stroke={1.7} aria-hidden="true" />
          )}
        </button>
        <PostMenu post={post}>
          <IconDots size={18} stroke={1.7} aria-hidden="true" />
        </PostMenu>
      </span>
    </div>
  );
}

/** Keeps its place when there is nothing to count, so that a first like moves nothing. */
function Count({ value }: { value: number }) {
  return <span className={classes.count}>{value > 0 ? shortNumber(value) : ""}</span>;
}
