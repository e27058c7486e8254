import type { ReactNode } from "react";
import classes from "./Section.module.css";

/** One matter of the settings: what it is about, and its controls. */
export function Section({ title, text, children }: { title: string; text?: ReactNode; children: ReactNode }) {
  return (
    <section className={classes.section}>
      <h2 className={classes.title}>{title}</h2>
      {text !== undefined && <p className={classes.text}>{text}</p>}
      <div className={classes.content}>{children}</div>
    </section>
  );
}
