import { useEffect } from "react";
import { useNavigate } from "react-router";

export interface Shortcut {
  keys: string;
  does: string;
}

/** What the help shows. */
export const shortcutGroups: { title: string; shortcuts: Shortcut[] }[] = [
  {
    title: "Everywhere",
    shortcuts: [
      { keys: "n", does: "Write a post" },
      { keys: "/", does: "Go to a person or a tag" },
      { keys: "?", does: "Show these shortcuts" },
      { keys: "Esc", does: "Close what is open" },
    ],
  },
  {
    title: "Go to",
    shortcuts: [
      { keys: "g h", does: "Home" },
      { keys: "g n", does: "Notifications" },
      { keys: "g t", does: "Trends" },
      { keys: "g b", does: "Bookmarks" },
      { keys: "g p", does: "Your profile" },
      { keys: "g x", does: "Glass box" },
      { keys: "g s", does: "Settings" },
    ],
  },
  {
    title: "Posts",
    shortcuts: [
      { keys: "j", does: "Next post" },
      { keys: "k", does: "Previous post" },
      { keys: "Enter", does: "Open the post" },
      { keys: "l", does: "Like" },
      { keys: "r", does: "Reply" },
      { keys: "t", does: "Repost" },
      { keys: "q", does: "Quote" },
      { keys: "b", does: "Bookmark" },
      { keys: ".", does: "Show new posts" },
    ],
  },
];

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input, textarea, select, [role='combobox'], [role='textbox']"))
  );
}

function dialogIsOpen(): boolean {
  return document.querySelector("[role='dialog'], [role='menu']") !== null;
}

/** Moves the focus from post to post, and with it what the other keys mean. */
function movePost(step: 1 | -1): void {
  const posts = Array.from(document.querySelectorAll<HTMLElement>("article[data-post]"));
  const current = posts.findIndex((post) => post.contains(document.activeElement));
  let next: HTMLElement | undefined;
  if (current >= 0) {
    next = posts[current + step];
  } else {
    // Nothing has the focus: begin with the first post that is in sight.
    next = posts.find((post) => post.getBoundingClientRect().bottom > 140);
  }
  if (next === undefined) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "center", behavior: "instant" });
}

/**
 * Keys for the whole console. Keys that act on a post press the button that the focused card has for it, so that there is one way to do each thing.
 */
export function useShortcuts(actions: { compose: () => void; jump: () => void; help: () => void; handle: string }): void {
  const navigate = useNavigate();
  const { compose, jump, help, handle } = actions;

  useEffect(() => {
    let goPressedAt = 0;
    const places: Record<string, string> = {
      h: "/",
      n: "/notifications",
      t: "/trends",
      b: "/bookmarks",
      p: `/u/${handle}`,
      x: "/glass/feed",
      s: "/settings",
      a: "/admin",
    };
    const onPost = new Set(["l", "r", "t", "q", "b"]);

    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (isTyping(event.target) || dialogIsOpen()) return;
      const key = event.key;
      const run = (work: () => void) => {
        event.preventDefault();
        work();
      };
      if (goPressedAt > 0 && Date.now() - goPressedAt < 1200) {
        goPressedAt = 0;
        const place = places[key];
        if (place !== undefined) run(() => void navigate(place));
        return;
      }
      if (key === "g") goPressedAt = Date.now();
      else if (key === "n") run(compose);
      else if (key === "/") run(jump);
      else if (key === "?") run(help);
      else if (key === "j") run(() => movePost(1));
      else if (key === "k") run(() => movePost(-1));
      else if (key === ".") {
        run(() => document.querySelector<HTMLElement>("[data-show-new]")?.click());
      } else if (onPost.has(key)) {
        const card = document.activeElement?.closest("article[data-post]");
        const button = card?.querySelector<HTMLElement>(`[data-key="${key}"]`);
        if (button) run(() => button.click());
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [navigate, compose, jump, help, handle]);
}
