import { useQuery } from "@tanstack/react-query";
import { IconArrowRight, IconBox } from "@tabler/icons-react";
import { Link } from "react-router";
import * as feed from "../api/feed";
import { shortNumber } from "../lib/format";
import classes from "./Aside.module.css";
import { LiveMark } from "./LiveMark";

/** The side of wide screens: what is talked about, and the way inside. */
export function Aside({ onHelp }: { onHelp: () => void }) {
  const trends = useQuery({
    queryKey: ["trends", "24h", 6],
    queryFn: ({ signal }) => feed.trends("24h", 6, signal),
    refetchInterval: 60_000,
    meta: { quiet: true },
  });
  return (
    <aside className={classes.aside} aria-label="More">
      <section className={classes.card} aria-labelledby="aside-trends">
        <h2 id="aside-trends" className={classes.title}>
          Trends
        </h2>
        {trends.data === undefined || trends.data.items.length === 0 ? (
          <p className={classes.text}>
            {trends.data === undefined ? "…" : "Nothing yet. Tags of the last 24 hours stand here."}
          </p>
        ) : (
          <ol className={classes.trends}>
            {trends.data.items.map((trend) => (
              <li key={trend.tag}>
                <Link to={`/tag/${encodeURIComponent(trend.tag)}`} className={classes.trend ?? ""}>
                  <span className={classes.tag}>#{trend.tag}</span>
                  <span className={classes.count}>{shortNumber(trend.posts)}</span>
                </Link>
              </li>
            ))}
          </ol>
        )}
        <Link to="/trends" className={classes.more ?? ""}>
          All trends
        </Link>
      </section>
      <Link to="/glass/feed" className={classes.glass ?? ""}>
        <IconBox size={22} stroke={1.6} aria-hidden="true" />
        <span>
          <strong>Glass box</strong>
          <span className={classes.text}>See how this feed works inside: queues, fan-out, ranking.</span>
        </span>
        <IconArrowRight size={17} aria-hidden="true" />
      </Link>
      <div className={classes.foot}>
        <LiveMark />
        <button type="button" className={classes.plain} onClick={onHelp}>
          Shortcuts
        </button>
        <a href="/docs">API</a>
      </div>
    </aside>
  );
}
