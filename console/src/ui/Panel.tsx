import { useId, type ReactNode } from "react";
import classes from "./Panel.module.css";

/** A titled part of a page that shows the inside. */
export function Panel({
  title,
  text,
  actions,
  children,
}: {
  title: string;
  text?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  const id = useId();
  return (
    <section className={classes.panel} aria-labelledby={id}>
      <div className={classes.head}>
        <div className={classes.titles}>
          <h2 id={id} className={classes.title}>
            {title}
          </h2>
          {text !== undefined && <p className={classes.text}>{text}</p>}
        </div>
        {actions}
      </div>
      {children}
    </section>
  );
}

/** A table that scrolls by itself where the screen is narrow. */
export function TableFrame({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className={classes.frame} role="group" aria-label={label} tabIndex={0}>
      <table className={classes.table}>{children}</table>
    </div>
  );
}
