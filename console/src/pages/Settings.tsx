import { Tabs } from "@mantine/core";
import { useNavigate, useParams } from "react-router";
import { PageHeader } from "../ui/PageHeader";
import { DataSection } from "./settings/DataSection";
import { KeysSection } from "./settings/KeysSection";
import { PeopleSection } from "./settings/PeopleSection";
import { ProfileSection } from "./settings/ProfileSection";
import { SecuritySection } from "./settings/SecuritySection";

const sections = [
  { name: "profile", title: "Profile", Section: ProfileSection },
  { name: "security", title: "Security", Section: SecuritySection },
  { name: "keys", title: "API keys", Section: KeysSection },
  { name: "people", title: "Muted and blocked", Section: PeopleSection },
  { name: "data", title: "Your data", Section: DataSection },
];

export default function Settings() {
  const { section } = useParams();
  const navigate = useNavigate();
  const current = sections.find((each) => each.name === section) ?? sections[0];
  return (
    <>
      <PageHeader title="Settings" />
      <Tabs
        value={current?.name ?? "profile"}
        onChange={(name) => void navigate(name === "profile" ? "/settings" : `/settings/${name ?? ""}`, { replace: true })}
        keepMounted={false}
      >
        <Tabs.List style={{ flexWrap: "nowrap", overflowX: "auto", overflowY: "hidden" }} px={8}>
          {sections.map((each) => (
            <Tabs.Tab key={each.name} value={each.name} style={{ flex: "none" }}>
              {each.title}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {sections.map(({ name, Section }) => (
          <Tabs.Panel key={name} value={name}>
            <Section />
          </Tabs.Panel>
        ))}
      </Tabs>
    </>
  );
}
