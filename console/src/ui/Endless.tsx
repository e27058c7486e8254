import { Button, Loader } from "@mantine/core";
import { useEffect, useRef } from "react";
import { sentence } from "../api/problem";
import classes from "./Endless.module.css";

/** The bottom of a list: loads the next page before it is reached, says when that failed and when all is seen. */
export function Endless({
  more,
  busy,
  error,
  load,
  end,
}: {
  more: boolean;
  busy: boolean;
  error: unknown;
  load: () => void;
  end?: string;
}) {
  const mark = useRef<HTMLDivElement>(null);
  const failed = error !== null && error !== undefined;

  useEffect(() => {
    const element = mark.current;
    if (element === null || !more || busy || failed) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) load();
      },
      { rootMargin: "900px 0px" },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [more, busy, failed, load]);

  return (
    <div ref={mark} className={classes.end}>
      {failed ? (
        <>
          <span>{sentence(error)}</span>
          <Button variant="default" size="xs" onClick={load}>
            Try again
          </Button>
        </>
      ) : more ? (
        <Loader size="sm" type="dots" role="status" aria-label="Loading more" />
      ) : (
        end !== undefined && <span>{end}</span>
      )}
    </div>
  );
}
