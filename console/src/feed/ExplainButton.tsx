import { Popover } from "@mantine/core";
import { IconChartBar } from "@tabler/icons-react";
import { useState } from "react";
import type { Explanation } from "../api/types";
import { percent } from "../lib/format";
import classes from "./Explain.module.css";
import post from "./Post.module.css";

/** Why a post stands where it stands in the ranked order. */
export function ExplainButton({ explain }: { explain: Explanation }) {
  const [opened, setOpened] = useState(false);
  const button = (
    <button
      type="button"
      className={post.action}
      aria-label="Why this post is here"
      aria-expanded={opened}
      title="Why is this here?"
      onClick={() => setOpened((before) => !before)}
    >
      <IconChartBar size={18} stroke={1.7} aria-hidden="true" />
    </button>
  );
  // As with the menu: nothing is made for the many posts that nobody asks about.
  if (!opened) return button;
  return (
    <Popover opened onChange={setOpened} position="bottom-end" width={300} shadow="md" trapFocus withRoles={false}>
      <Popover.Target>{button}</Popover.Target>
      <Popover.Dropdown role="dialog" aria-label="Why this post is here" tabIndex={-1}>
        <ExplainBars explain={explain} />
      </Popover.Dropdown>
    </Popover>
  );
}

export function ExplainBars({ explain }: { explain: Explanation }) {
  return (
    <div className={classes.explain}>
      <div className={classes.head}>
        <span>Score</span>
        <strong className="tabular">{explain.score.toFixed(3)}</strong>
      </div>
      <table className={classes.table}>
        <thead className="visually-hidden">
          <tr>
            <th>Feature</th>
            <th>Share</th>
          </tr>
        </thead>
        <tbody>
          {explain.features.map((feature) => (
            <tr key={feature.name} title={`value ${feature.value.toFixed(4)} × weight ${feature.weight}`}>
              <td className={classes.name}>{feature.name}</td>
              <td className={classes.barCell}>
                <span className={classes.track}>
                  <span className={classes.bar} style={{ width: `${Math.min(100, Math.max(0, feature.share * 100))}%` }} />
                </span>
              </td>
              <td className={classes.share}>{percent(feature.share)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <div className={classes.source}>Source: {explain.source}</div>
    </div>
  );
}
