import classes from "./Avatar.module.css";

function hue(handle: string): number {
  let hash = 2166136261;
  for (const letter of handle) {
    hash ^= letter.codePointAt(0) ?? 0;
    hash = Math.imul(hash, 16777619);
  }
  return (hash >>> 0) % 360;
}

function initials(name: string, handle: string): string {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters =
    words.length >= 2 ? [words[0], words[words.length - 1]].map((word) => Array.from(word ?? "")[0] ?? "") : null;
  return (letters?.join("") || Array.from(name.trim() || handle).slice(0, 2).join("")).toUpperCase();
}

/** A person's picture: initials on a colour that belongs to the handle. Decoration; the name stands beside it. */
export function Avatar({ author, size = 40 }: { author: { handle: string; name: string }; size?: number }) {
  const angle = hue(author.handle);
  return (
    <span
      aria-hidden="true"
      className={classes.avatar}
      style={{
        width: size,
        height: size,
        fontSize: Math.round(size * 0.36),
        background: `linear-gradient(140deg, oklch(0.52 0.13 ${angle}), oklch(0.42 0.12 ${(angle + 40) % 360}))`,
      }}
    >
      {initials(author.name, author.handle)}
    </span>
  );
}
