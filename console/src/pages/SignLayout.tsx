import type { ReactNode } from "react";
import { SchemeToggle } from "../shell/Navigation";
import { useTitle } from "../lib/hooks";
import { Logo } from "../ui/Logo";
import classes from "./Sign.module.css";

export function SignLayout({ title, children, foot }: { title: string; children: ReactNode; foot: ReactNode }) {
  useTitle(title);
  return (
    <div className={classes.page}>
      <div className={classes.scheme}>
        <SchemeToggle />
      </div>
      <main className={classes.main}>
        <div className={classes.head}>
          <Logo size={44} />
          <h1 className={classes.title}>{title}</h1>
        </div>
        <div className={classes.card}>{children}</div>
        <div className={classes.foot}>{foot}</div>
      </main>
    </div>
  );
}
