import { Modal } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import * as feed from "../api/feed";
import type { Post } from "../api/types";
import { fullTime } from "../lib/format";
import { Failure, RowSkeletons } from "../ui/States";
import classes from "./Dialogs.module.css";

/** What a post said before it was edited. */
export default function HistoryDialog({ post, close }: { post: Pick<Post, "id">; close: () => void }) {
  const history = useQuery({
    queryKey: ["history", post.id],
    queryFn: ({ signal }) => feed.postHistory(post.id, signal),
    staleTime: 0,
  });
  return (
    <Modal opened onClose={close} title="History of edits" closeButtonProps={{ "aria-label": "Close" }}>
      {history.isError && <Failure error={history.error} retry={() => void history.refetch()} />}
      {history.isPending && <RowSkeletons count={2} height={64} />}
      <ol className={classes.versions}>
        {history.data?.items.map((version, index) => (
          <li key={version.at}>
            <div className={classes.when}>
              {index === 0 ? "Now, since " : ""}
              {fullTime(version.at)}
            </div>
            <div className={classes.version}>{version.text}</div>
          </li>
        ))}
      </ol>
    </Modal>
  );
}
