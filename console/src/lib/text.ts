/** Text as people count and read it. */

export const POST_LIMIT = 280;

const segmenter =
  typeof Intl.Segmenter === "undefined" ? null : new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** How many characters a person sees: grapheme clusters, so that a family of emoji is one. */
export function countCharacters(text: string): number {
  if (segmenter === null) return Array.from(text).length;
  let count = 0;
  for (const _ of segmenter.segment(text)) count += 1;
  return count;
}

export type TextPart =
  | { kind: "text"; text: string }
  | { kind: "mention"; text: string; handle: string }
  | { kind: "tag"; text: string; tag: string }
  | { kind: "link"; text: string; href: string };

const pattern = /(https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]])|(?<![\p{L}\p{N}_@#])([@#])([\p{L}\p{N}_]+)/gu;

/** Splits a post into plain text and what can be followed: only mentions and tags that the server knows of. */
export function splitText(text: string, hashtags: string[], mentions: { handle: string }[]): TextPart[] {
  const knownTags = new Set(hashtags.map((tag) => tag.toLowerCase()));
  const knownHandles = new Set(mentions.map((mention) => mention.handle.toLowerCase()));
  const parts: TextPart[] = [];
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    const [whole, href, sign, word] = match;
    const lower = (word ?? "").toLowerCase();
    let part: TextPart | null = null;
    if (href !== undefined) part = { kind: "link", text: href.replace(/^https?:\/\//, ""), href };
    else if (sign === "#" && knownTags.has(lower)) part = { kind: "tag", text: whole, tag: lower };
    else if (sign === "@" && knownHandles.has(lower)) part = { kind: "mention", text: whole, handle: lower };
    if (part === null) continue;
    if (match.index > from) parts.push({ kind: "text", text: text.slice(from, match.index) });
    parts.push(part);
    from = match.index + whole.length;
  }
  if (from < text.length) parts.push({ kind: "text", text: text.slice(from) });
  return parts;
}
