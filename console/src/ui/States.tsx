import { Button, Skeleton } from "@mantine/core";
import { IconCloudOff, IconLock, type Icon } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { Problem, sentence } from "../api/problem";
import classes from "./States.module.css";

/** What stands where there is nothing yet, and what to do about it. */
export function Empty({ icon: Mark, title, children }: { icon: Icon; title: string; children?: ReactNode }) {
  return (
    <div className={classes.state}>
      <Mark size={30} stroke={1.5} aria-hidden="true" />
      <p className={classes.title}>{title}</p>
      {children !== undefined && <div className={classes.text}>{children}</div>}
    </div>
  );
}

/** A page, or a part of one, that could not be loaded. */
export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const problem = error instanceof Problem ? error : null;
  const forbidden = problem?.status === 403;
  const Mark = forbidden ? IconLock : IconCloudOff;
  return (
    <div className={classes.state} role="alert">
      <Mark size={30} stroke={1.5} aria-hidden="true" />
      <p className={classes.title}>{problem?.title ?? "This could not be loaded"}</p>
      <div className={classes.text}>
        {sentence(error)}
        {problem?.requestId !== undefined && <div className={classes.request}>Request {problem.requestId}</div>}
      </div>
      {retry !== undefined && !forbidden && (
        <Button variant="default" size="xs" mt="sm" onClick={retry}>
          Try again
        </Button>
      )}
    </div>
  );
}

/** Posts that are on their way, in the shape that they will have. */
export function PostSkeletons({ count = 5 }: { count?: number }) {
  return (
    <div role="status" aria-label="Loading posts">
      {Array.from({ length: count }, (_, index) => (
        <div key={index} className={classes.post}>
          <Skeleton circle height={40} />
          <div>
            <Skeleton height={11} width="38%" mt={4} />
            <Skeleton height={11} mt={14} />
            <Skeleton height={11} width={`${70 - ((index * 17) % 40)}%`} mt={9} />
            <Skeleton height={11} width="55%" mt={18} />
          </div>
        </div>
      ))}
    </div>
  );
}

export function RowSkeletons({ count = 6, height = 40 }: { count?: number; height?: number }) {
  return (
    <div role="status" aria-label="Loading" className={classes.rows}>
      {Array.from({ length: count }, (_, index) => (
        <Skeleton key={index} height={height} radius="md" />
      ))}
    </div>
  );
}
