import type { Overview } from "../api/types";
import { duration, fullNumber, milliseconds } from "../lib/format";
import { Panel, TableFrame } from "../ui/Panel";
import { Sparkline } from "../ui/Sparkline";
import classes from "./Admin.module.css";

const waited = (seconds: number): string => (seconds < 60 ? milliseconds(seconds * 1000) : duration(seconds));

/** How far every consumer is, and, on servers, the relay of each shard's outbox. */
export function Consumers({ now, history }: { now: Overview; history: Overview[] }) {
  return (
    <Panel title="Consumers" text="How far each group has read its topic: events that wait, and how old the oldest is.">
      <TableFrame label="Consumers">
        <thead>
          <tr>
            <th>Group</th>
            <th>Topic</th>
            <th data-number>Waiting</th>
            <th>Last minute</th>
            <th data-number>Oldest</th>
            <th data-number>Dead letters</th>
          </tr>
        </thead>
        <tbody>
          {now.consumers.map((consumer) => (
            <tr key={`${consumer.group} ${consumer.topic}`}>
              <td>{consumer.group}</td>
              <td>{consumer.topic}</td>
              <td data-number>{fullNumber(consumer.lag)}</td>
              <td>
                <Sparkline
                  label={`Events waiting for ${consumer.group} in the last minute`}
                  values={history.map(
                    (each) =>
                      each.consumers.find((other) => other.group === consumer.group && other.topic === consumer.topic)
                        ?.lag ?? 0,
                  )}
                />
              </td>
              <td data-number>{consumer.lag === 0 ? "–" : waited(consumer.oldestSeconds)}</td>
              <td data-number className={consumer.deadLetters > 0 ? classes.bad : undefined}>
                {fullNumber(consumer.deadLetters)}
              </td>
            </tr>
          ))}
        </tbody>
      </TableFrame>
    </Panel>
  );
}
