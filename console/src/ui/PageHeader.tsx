import { ActionIcon } from "@mantine/core";
import { IconArrowLeft } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { useNavigate } from "react-router";
import { useTitle } from "../lib/hooks";
import classes from "./PageHeader.module.css";

/** The sticky top of a page: where one is, the way back, and what concerns the whole page. */
export function PageHeader({
  title,
  subtitle,
  back = false,
  actions,
  children,
}: {
  title: string;
  subtitle?: ReactNode;
  back?: boolean;
  actions?: ReactNode;
  children?: ReactNode;
}) {
  const navigate = useNavigate();
  useTitle(title);
  return (
    <header className={classes.header}>
      <div className={classes.row}>
        {back && (
          <ActionIcon
            variant="subtle"
            color="gray"
            c="var(--text-2)"
            size="lg"
            aria-label="Back"
            onClick={() => (window.history.length > 1 ? navigate(-1) : navigate("/"))}
          >
            <IconArrowLeft size={19} stroke={1.8} />
          </ActionIcon>
        )}
        <div className={classes.titles}>
          <h1 className={classes.title}>{title}</h1>
          {subtitle !== undefined && <div className={classes.subtitle}>{subtitle}</div>}
        </div>
        {actions}
      </div>
      {children}
    </header>
  );
}
