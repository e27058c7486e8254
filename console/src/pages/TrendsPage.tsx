import { SegmentedControl } from "@mantine/core";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { IconTrendingUp } from "@tabler/icons-react";
import { Link, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import type { TrendWindow } from "../api/types";
import { clockTime, fullNumber } from "../lib/format";
import { PageHeader } from "../ui/PageHeader";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Trends.module.css";

const windows: TrendWindow[] = ["1h", "24h", "7d"];

export default function TrendsPage() {
  const [parameters, setParameters] = useSearchParams();
  const window = windows.find((each) => each === parameters.get("window")) ?? "24h";
  const trends = useQuery({
    queryKey: ["trends", window, 50],
    queryFn: ({ signal }) => feed.trends(window, 50, signal),
    refetchInterval: 15_000,
    placeholderData: keepPreviousData,
  });
  const items = trends.data?.items ?? [];
  const highest = Math.max(...items.map((trend) => trend.score), 1e-9);
  return (
    <>
      <PageHeader
        title="Trends"
        subtitle={trends.data === undefined ? " " : `as of ${clockTime(trends.data.asOf)}`}
        actions={
          <SegmentedControl
            size="xs"
            radius="xl"
            aria-label="Window of time"
            value={window}
            onChange={(value) => setParameters(value === "24h" ? {} : { window: value }, { replace: true })}
            data={[
              { value: "1h", label: "Hour" },
              { value: "24h", label: "Day" },
              { value: "7d", label: "Week" },
            ]}
          />
        }
      />
      {trends.isPending && <RowSkeletons count={8} height={52} />}
      {trends.isError && trends.data === undefined && (
        <Failure error={trends.error} retry={() => void trends.refetch()} />
      )}
      {trends.data !== undefined && items.length === 0 && (
        <Empty icon={IconTrendingUp} title="No trends in this window">
          Tags that are used now rise here; those of earlier fade.
        </Empty>
      )}
      <ol className={classes.list}>
        {items.map((trend, index) => (
          <li key={trend.tag}>
            <Link to={`/tag/${encodeURIComponent(trend.tag)}`} className={classes.trend ?? ""}>
              <span className={classes.place}>{index + 1}</span>
              <span className={classes.middle}>
                <span className={classes.tag}>#{trend.tag}</span>
                <span className={classes.track} aria-hidden="true">
                  <span className={classes.bar} style={{ width: `${Math.max(1, (trend.score / highest) * 100)}%` }} />
                </span>
              </span>
              <span className={classes.figures}>
                {fullNumber(trend.posts)} {trend.posts === 1 ? "post" : "posts"}
                <span className={classes.score} title="Count of uses, where older ones weigh less">
                  score {trend.score.toFixed(2)}
                </span>
              </span>
            </Link>
          </li>
        ))}
      </ol>
    </>
  );
}
