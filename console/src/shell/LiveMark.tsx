import { useLiveStatus } from "./live";
import classes from "./LiveMark.module.css";

const names = { websocket: "WebSocket", events: "server-sent events", polling: "long polling" };

/** Whether what happens elsewhere is seen here at once, and by which transport. */
export function LiveMark() {
  const { state, transport } = useLiveStatus();
  const live = state === "live";
  return (
    <span
      className={classes.mark}
      data-live={live || undefined}
      title={live ? `Connected by ${names[transport]}` : "Not connected at the moment"}
    >
      <span className={classes.light} aria-hidden="true" />
      {live ? "Live" : "Connecting"}
    </span>
  );
}
