import { Link } from "react-router";
import type { Post } from "../api/types";
import { splitText } from "../lib/text";
import classes from "./Post.module.css";

/** A post's text with its mentions, tags and addresses as links. */
export function RichText({ post }: { post: Pick<Post, "text" | "hashtags" | "mentions"> }) {
  return splitText(post.text, post.hashtags, post.mentions).map((part, index) => {
    switch (part.kind) {
      case "text":
        return part.text;
      case "mention":
        return (
          <Link key={index} to={`/u/${part.handle}`} className={classes.inlineLink ?? ""}>
            {part.text}
          </Link>
        );
      case "tag":
        return (
          <Link key={index} to={`/tag/${encodeURIComponent(part.tag)}`} className={classes.inlineLink ?? ""}>
            {part.text}
          </Link>
        );
      case "link":
        return (
          <a key={index} href={part.href} target="_blank" rel="noopener noreferrer nofollow" className={classes.inlineLink}>
            {part.text}
          </a>
        );
    }
  });
}
