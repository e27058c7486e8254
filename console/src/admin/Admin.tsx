import { Tabs } from "@mantine/core";
import { IconLock } from "@tabler/icons-react";
import { lazy, Suspense } from "react";
import { useNavigate, useParams } from "react-router";
import { holds, useMe } from "../shell/me";
import { PageHeader } from "../ui/PageHeader";
import { Empty, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";
import { useChaos } from "./useChaos";

const sections = [
  { name: "overview", title: "Overview", permission: "admin.inspect", Section: lazy(() => import("./OverviewSection")) },
  { name: "cluster", title: "Cluster", permission: "admin.inspect", Section: lazy(() => import("./ClusterSection")) },
  { name: "chaos", title: "Chaos", permission: "admin.chaos", Section: lazy(() => import("./ChaosSection")) },
  { name: "traces", title: "Traces", permission: "admin.inspect", Section: lazy(() => import("./TracesSection")) },
  { name: "letters", title: "Dead letters", permission: "admin.inspect", Section: lazy(() => import("./LettersSection")) },
  { name: "accounts", title: "Accounts and roles", permission: "identity.accounts.list", Section: lazy(() => import("./AccountsSection")) },
  { name: "audit", title: "Audit log", permission: "identity.audit.read", Section: lazy(() => import("./AuditSection")) },
];

export default function Admin() {
  const { section } = useParams();
  const navigate = useNavigate();
  const me = useMe();
  const chaos = useChaos({ allowed: me !== undefined && holds(me.permissions, "admin.chaos"), watching: false });
  if (me === undefined) {
    return (
      <>
        <PageHeader title="Admin" />
        <RowSkeletons />
      </>
    );
  }
  // Only a cluster that a lab runs can be broken; whoever asks for the page by its address is told so.
  const canBreak = chaos.data !== undefined || section === "chaos";
  const allowed = sections.filter(
    (each) => holds(me.permissions, each.permission) && (each.name !== "chaos" || canBreak),
  );
  const current = allowed.find((each) => each.name === section) ?? allowed[0];
  if (current === undefined) {
    return (
      <>
        <PageHeader title="Admin" />
        <Empty icon={IconLock} title="This is for administrators">
          You need the permission <code>admin.inspect</code> to see the inside of this node.
        </Empty>
      </>
    );
  }
  return (
    <>
      <PageHeader title="Admin" />
      <Tabs
        value={current.name}
        onChange={(name) => void navigate(name === "overview" ? "/admin" : `/admin/${name ?? ""}`, { replace: true })}
        keepMounted={false}
      >
        <Tabs.List style={{ flexWrap: "nowrap", overflowX: "auto", overflowY: "hidden" }} px={12}>
          {allowed.map((each) => (
            <Tabs.Tab key={each.name} value={each.name} style={{ flex: "none" }}>
              {each.title}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {allowed.map(({ name, Section }) => (
          <Tabs.Panel key={name} value={name} className={classes.section}>
            <Suspense fallback={<RowSkeletons />}>
              <Section />
            </Suspense>
          </Tabs.Panel>
        ))}
      </Tabs>
    </>
  );
}
