import { Button, Textarea } from "@mantine/core";
import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useId, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import * as feed from "../api/feed";
import { newIdempotencyKey } from "../api/client";
import { Problem, sentence } from "../api/problem";
import type { Post } from "../api/types";
import { useAccount } from "../lib/hooks";
import { countCharacters, POST_LIMIT } from "../lib/text";
import { Avatar } from "../ui/Avatar";
import { prependHome, updatePost } from "./cache";
import classes from "./Composer.module.css";

/** Shows a post that was just written wherever it belongs, without asking the server again. */
function showOwnPost(client: QueryClient, post: Post, target: { replyTo?: string; quoteOf?: string }): void {
  prependHome(client, "latest", [post]);
  prependHome(client, "ranked", [post]);
  if (target.replyTo !== undefined) {
    updatePost(client, target.replyTo, (parent) => ({
      ...parent,
      counts: { ...parent.counts, replies: parent.counts.replies + 1 },
    }));
    void client.invalidateQueries({ queryKey: ["thread"] });
  }
  if (target.quoteOf !== undefined) {
    updatePost(client, target.quoteOf, (quoted) => ({
      ...quoted,
      counts: { ...quoted.counts, quotes: quoted.counts.quotes + 1 },
    }));
  }
  void client.invalidateQueries({ queryKey: ["user-posts", post.author.handle] });
  void client.invalidateQueries({ queryKey: ["profile", post.author.handle] });
}

export interface ComposerProps {
  placeholder: string;
  label: string;
  action: string;
  replyTo?: string;
  quoteOf?: string;
  initialText?: string;
  autoFocus?: boolean;
  minRows?: number;
  children?: ReactNode;
  onDone?: (post: Post) => void;
}

/** Where posts are written: counts as people count, and keeps the text until the server has it. */
export function Composer(props: ComposerProps) {
  const { replyTo, quoteOf, onDone } = props;
  const client = useQueryClient();
  const account = useAccount();
  const [text, setText] = useState(props.initialText ?? "");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const attempt = useRef<{ text: string; key: string } | null>(null);
  const counterId = useId();

  const used = countCharacters(text);
  const left = POST_LIMIT - used;
  const sendable = text.trim() !== "" && left >= 0 && !busy;

  const send = async () => {
    if (!sendable) return;
    setBusy(true);
    setProblem(null);
    // The same text tried again is the same attempt: should the first answer have been lost, nothing is posted twice.
    if (attempt.current?.text !== text) attempt.current = { text, key: newIdempotencyKey() };
    try {
      const post = await feed.createPost({ text, replyTo, quoteOf }, attempt.current.key);
      attempt.current = null;
      setText("");
      showOwnPost(client, post, { replyTo, quoteOf });
      onDone?.(post);
    } catch (error) {
      setProblem(error);
      if (error instanceof Problem && !error.unreachable) attempt.current = null;
    } finally {
      setBusy(false);
    }
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void send();
    }
  };

  return (
    <form
      className={classes.composer}
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <Avatar author={account} size={40} />
      <div className={classes.body}>
        <Textarea
          variant="unstyled"
          autosize
          minRows={props.minRows ?? 1}
          maxRows={14}
          aria-label={props.label}
          aria-describedby={counterId}
          aria-invalid={left < 0 || undefined}
          placeholder={props.placeholder}
          value={text}
          data-autofocus={props.autoFocus || undefined}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
          classNames={{ input: classes.input ?? "" }}
        />
        {props.children}
        {problem !== null && (
          <p role="alert" className={classes.problem}>
            {sentence(problem)}
          </p>
        )}
        <div className={classes.foot}>
          <span className={classes.hint}>Ctrl Enter posts</span>
          <Counter id={counterId} left={left} used={used} />
          <Button type="submit" radius="xl" size="sm" disabled={!sendable} loading={busy}>
            {props.action}
          </Button>
        </div>
      </div>
    </form>
  );
}

const RADIUS = 9;
const ROUND = 2 * Math.PI * RADIUS;

function Counter({ id, left, used }: { id: string; left: number; used: number }) {
  const state = left < 0 ? "over" : left <= 20 ? "near" : "fine";
  return (
    <span className={classes.counter} data-state={state} data-testid="counter">
      <span id={id} className={classes.left}>
        <span className="visually-hidden">Characters left: </span>
        {left}
      </span>
      <svg width="24" height="24" viewBox="0 0 24 24" aria-hidden="true">
        <circle cx="12" cy="12" r={RADIUS} className={classes.ring} />
        <circle
          cx="12"
          cy="12"
          r={RADIUS}
          className={classes.part}
          strokeDasharray={`${Math.min(1, used / POST_LIMIT) * ROUND} ${ROUND}`}
          transform="rotate(-90 12 12)"
        />
      </svg>
      <span className="visually-hidden" aria-live="polite">
        {state === "over" ? `${-left} characters too many` : state === "near" ? `${left} characters left` : ""}
      </span>
    </span>
  );
}
