import { Button } from "@mantine/core";
import { IconMoodPuzzled } from "@tabler/icons-react";
import { useRouteError } from "react-router";
import { sentence } from "../api/problem";
import { Empty } from "../ui/States";

/** A page that broke, or whose code is gone because a newer console was installed meanwhile. */
export function RouteFailure() {
  const error = useRouteError();
  return (
    <main>
      <Empty icon={IconMoodPuzzled} title="This page broke">
        {sentence(error)}
        <div style={{ marginTop: 16 }}>
          <Button size="xs" onClick={() => window.location.reload()}>
            Load it again
          </Button>
        </div>
      </Empty>
    </main>
  );
}
