import { IconMapQuestion } from "@tabler/icons-react";
import { Link } from "react-router";
import { PageHeader } from "../ui/PageHeader";
import { Empty } from "../ui/States";

export default function NotFound() {
  return (
    <>
      <PageHeader title="Not found" />
      <Empty icon={IconMapQuestion} title="There is no such page">
        <Link to="/">Go home</Link>
      </Empty>
    </>
  );
}
