import { Button, TextInput } from "@mantine/core";
import { useQueries, useQuery } from "@tanstack/react-query";
import { IconListDetails } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useSearchParams } from "react-router";
import * as feed from "../api/feed";
import { inspectUserHome } from "../api/inspect";
import type { Explanation, EntryInspection } from "../api/types";
import { fullNumber, percent } from "../lib/format";
import { useAccount } from "../lib/hooks";
import { Panel, TableFrame } from "../ui/Panel";
import { Empty, Failure, RowSkeletons } from "../ui/States";
import classes from "./Glass.module.css";

const sources = [
  { name: "pushed", says: "pushed by fan-out" },
  { name: "pulled", says: "pulled from its author" },
  { name: "own", says: "written by themselves" },
] as const;

/** Pick a user and see where each entry of their home comes from, and how it ranks. */
export function TimelineInside() {
  const self = useAccount();
  const [parameters, setParameters] = useSearchParams();
  const handle = parameters.get("user") ?? self.handle;
  const [typed, setTyped] = useState("");
  const home = useQuery({
    queryKey: ["inspect-home", handle],
    queryFn: ({ signal }) => inspectUserHome(handle, signal),
    refetchInterval: 3000,
    staleTime: 0,
    meta: { quiet: true },
  });
  // The features of a score are told to the reader themselves only.
  const ranked = useQuery({
    queryKey: ["inspect-ranked", handle],
    queryFn: ({ signal }) => feed.home("ranked", undefined, signal),
    enabled: handle === self.handle,
    refetchInterval: 10_000,
    meta: { quiet: true },
  });
  const explained = new Map((ranked.data?.items ?? []).map((post) => [post.id, post.explain ?? null]));

  return (
    <Panel
      title={`The home of @${handle}`}
      text="Kept entries, what was pulled while reading, and what was left out because of an unfollow, a block, a mute or a deletion."
      actions={
        <form
          className={classes.pick}
          onSubmit={(event) => {
            event.preventDefault();
            const wanted = typed.trim().replace(/^@/, "").toLowerCase();
            if (wanted === "") return;
            setParameters((before) => {
              before.set("user", wanted);
              return before;
            }, { replace: true, preventScrollReset: true });
          }}
        >
          <TextInput
            size="xs"
            aria-label="A person's handle"
            placeholder="A person's handle"
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
      {home.isPending && <RowSkeletons />}
      {home.isError && home.data === undefined && <Failure error={home.error} />}
      {home.data !== undefined && (
        <div className={classes.timeline} data-testid="timeline">
          <p className={classes.says}>
            Follows {fullNumber(home.data.follows)}, of whom {fullNumber(home.data.pulledAuthors.length)} are pulled.
            {home.data.floor !== "0" && ` Posts before number ${home.data.floor} are read from their authors.`}
          </p>
          {home.data.entries.length === 0 ? (
            <Empty icon={IconListDetails} title="An empty home" />
          ) : (
            <>
              <Strip entries={home.data.entries} />
              <Entries entries={home.data.entries} explained={explained} />
            </>
          )}
        </div>
      )}
    </Panel>
  );
}

/** All entries in one line, newest first, coloured by where they come from. */
function Strip({ entries }: { entries: EntryInspection[] }) {
  const count = (source: string) => entries.filter((entry) => entry.source === source).length;
  const width = 1000 / entries.length;
  return (
    <div>
      <svg
        viewBox="0 0 1000 26"
        preserveAspectRatio="none"
        className={classes.strip}
        role="img"
        aria-label={sources.map(({ name }) => `${count(name)} ${name}`).join(", ")}
      >
        {entries.map((entry, index) => (
          <rect
            key={`${entry.id} ${index}`}
            x={index * width}
            width={Math.max(0.5, width - (entries.length > 250 ? 0 : 1))}
            y={entry.hidden ? 15 : 0}
            height={entry.hidden ? 11 : 26}
            opacity={entry.hidden ? 0.45 : 1}
            data-source={entry.source}
            className={classes.source}
          >
            <title>{`${entry.id}, ${entry.source}${entry.hidden ? `, left out: ${entry.hidden}` : ""}`}</title>
          </rect>
        ))}
      </svg>
      <div className={classes.legend}>
        {sources.map(({ name, says }) => (
          <span key={name}>
            <span className={classes.swatch} data-source={name} aria-hidden="true" />
            {count(name)} {says}
          </span>
        ))}
        <span>{entries.filter((entry) => entry.hidden).length} left out (low)</span>
      </div>
    </div>
  );
}

const STEP = 15;

function Entries({
  entries,
  explained,
}: {
  entries: EntryInspection[];
  explained: Map<string, Explanation | null>;
}) {
  const [count, setCount] = useState(STEP);
  const shown = entries.slice(0, count);
  const posts = useQueries({
    queries: shown.map((entry) => ({
      queryKey: ["post", entry.id],
      queryFn: async ({ signal }: { signal: AbortSignal }) => (await feed.post(entry.id, signal)).body,
      staleTime: 60_000,
      retry: false,
      meta: { quiet: true },
    })),
  });
  const highest = Math.max(...entries.map((entry) => entry.score ?? 0), 1e-9);
  return (
    <>
      <TableFrame label="Timeline entries">
        <thead>
          <tr>
            <th>Post</th>
            <th>Author</th>
            <th>Source</th>
            <th data-number>Rank</th>
            <th data-number>Score</th>
            <th>Made of</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((entry, index) => (
            <tr key={`${entry.id} ${index}`} className={entry.hidden ? classes.leftOut : undefined}>
              <td>
                <Link to={`/post/${entry.id}`} className={classes.mono ?? ""}>
                  {entry.id}
                </Link>
                <span className={classes.preview}>{posts[index]?.data?.text}</span>
              </td>
              <td>{posts[index]?.data === undefined ? entry.author : `@${posts[index].data.author.handle}`}</td>
              <td>
                <span className={classes.sourceName}>
                  <span className={classes.swatch} data-source={entry.source} aria-hidden="true" />
                  {entry.source}
                </span>
                {entry.hidden && <span className={classes.hidden}>left out: {entry.hidden}</span>}
              </td>
              <td data-number>{entry.rank ?? "–"}</td>
              <td data-number>{entry.score === undefined || entry.score === null ? "–" : entry.score.toFixed(3)}</td>
              <td>
                <Score explain={explained.get(entry.id) ?? null} part={(entry.score ?? 0) / highest} />
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
      {entries.length > shown.length && (
        <div className={classes.moreRow}>
          <Button size="xs" variant="default" onClick={() => setCount(count + STEP)}>
            More of {entries.length} entries
          </Button>
        </div>
      )}
    </>
  );
}

/** The score as a bar; where it is known of what it is made, in its parts. */
function Score({ explain, part }: { explain: Explanation | null; part: number }) {
  const parts = explain?.features.filter((feature) => feature.share > 0) ?? [];
  const label = parts.map((feature) => `${feature.name} ${percent(feature.share)}`).join(", ");
  return (
    <span className={classes.scoreTrack} title={label === "" ? undefined : label}>
      <span className={classes.scoreBar} style={{ width: `${Math.max(0, part) * 100}%` }}>
        {parts.map((feature, index) => (
          <span key={feature.name} data-part={index % 5} style={{ width: `${feature.share * 100}%` }} />
        ))}
      </span>
      {label !== "" && <span className="visually-hidden">{label}</span>}
    </span>
  );
}
