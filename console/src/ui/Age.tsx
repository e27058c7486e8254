import { age, fullTime } from "../lib/format";
import { useNow } from "../lib/hooks";

/** How long ago something was; the exact time on hover. */
export function Age({ time }: { time: string }) {
  const now = useNow();
  return (
    <time dateTime={time} title={fullTime(time)}>
      {age(time, now)}
    </time>
  );
}
