import type { ReactNode } from "react";
import { Link } from "react-router";
import type { Author } from "../api/types";
import { Avatar } from "../ui/Avatar";
import classes from "./PersonRow.module.css";

/** One person in a list. */
export function PersonRow({ person, children, onOpen }: { person: Author; children?: ReactNode; onOpen?: () => void }) {
  return (
    <div className={classes.row}>
      <Link to={`/u/${person.handle}`} className={classes.person ?? ""} onClick={onOpen}>
        <Avatar author={person} size={40} />
        <span className={classes.names}>
          <span className={classes.name}>{person.name}</span>
          <span className={classes.handle}>@{person.handle}</span>
        </span>
      </Link>
      {children}
    </div>
  );
}
