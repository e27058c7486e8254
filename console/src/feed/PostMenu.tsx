import { Menu } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import {
  IconBox,
  IconEdit,
  IconHistory,
  IconLink,
  IconTrash,
  IconUserOff,
  IconUsers,
  IconVolumeOff,
} from "@tabler/icons-react";
import { lazy, Suspense, useState, type ReactNode } from "react";
import { useNavigate } from "react-router";
import * as feed from "../api/feed";
import type { Post } from "../api/types";
import { useAccount } from "../lib/hooks";
import { showDone, showProblem } from "../ui/notify";
import { removeAuthor } from "./cache";
import classes from "./Post.module.css";

const EditDialog = lazy(() => import("./EditDialog"));
const HistoryDialog = lazy(() => import("./HistoryDialog"));
const LikersDialog = lazy(() => import("./LikersDialog"));
const DeleteDialog = lazy(() => import("./DeleteDialog"));

const EDIT_MS = 5 * 60_000;

/** What else can be done with a post. The menu itself is only made when it is opened: a page has many posts. */
export function PostMenu({ post, children }: { post: Post; children: ReactNode }) {
  const [touched, setTouched] = useState(false);
  const [opened, setOpened] = useState(false);
  const [dialog, setDialog] = useState<"edit" | "history" | "likers" | "delete" | null>(null);

  const button = (
    <button
      type="button"
      className={classes.action}
      aria-label="More"
      aria-haspopup="menu"
      title="More"
      onClick={
        touched
          ? undefined
          : () => {
              setTouched(true);
              setOpened(true);
            }
      }
    >
      {children}
    </button>
  );

  const close = () => setDialog(null);
  return (
    <>
      {touched ? (
        <Menu opened={opened} onChange={setOpened} position="bottom-end" width={220} shadow="md">
          <Menu.Target>{button}</Menu.Target>
          <Menu.Dropdown>
            <Items post={post} show={setDialog} />
          </Menu.Dropdown>
        </Menu>
      ) : (
        button
      )}
      <Suspense fallback={null}>
        {dialog === "edit" && <EditDialog post={post} close={close} />}
        {dialog === "history" && <HistoryDialog post={post} close={close} />}
        {dialog === "likers" && <LikersDialog post={post} close={close} />}
        {dialog === "delete" && (
          <DeleteDialog post={post} close={close} />
        )}
      </Suspense>
    </>
  );
}

function Items({ post, show }: { post: Post; show: (dialog: "edit" | "history" | "likers" | "delete") => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const own = useAccount().id === post.author.id;
  const editable = own && Date.now() - new Date(post.created).getTime() < EDIT_MS;

  const relate = async (relation: "mutes" | "blocks", done: string) => {
    try {
      await feed.setRelation(relation, post.author.handle, true);
      removeAuthor(client, post.author.id);
      await client.invalidateQueries({ queryKey: ["profile", post.author.handle] });
      showDone(done);
    } catch (error) {
      showProblem(error);
    }
  };

  const copy = async () => {
    try {
      await navigator.clipboard.writeText(`${window.location.origin}/post/${post.id}`);
      showDone("The link is on the clipboard.");
    } catch {
      showProblem(new Error("The browser did not allow the clipboard."));
    }
  };

  return (
    <>
      {editable && (
        <Menu.Item leftSection={<IconEdit size={16} />} onClick={() => show("edit")}>
          Edit
        </Menu.Item>
      )}
      {post.edited !== undefined && post.edited !== null && (
        <Menu.Item leftSection={<IconHistory size={16} />} onClick={() => show("history")}>
          History of edits
        </Menu.Item>
      )}
      <Menu.Item leftSection={<IconUsers size={16} />} onClick={() => show("likers")}>
        Who liked this
      </Menu.Item>
      <Menu.Item leftSection={<IconLink size={16} />} onClick={() => void copy()}>
        Copy the link
      </Menu.Item>
      <Menu.Item leftSection={<IconBox size={16} />} onClick={() => navigate(`/glass/feed?post=${post.id}`)}>
        See in the glass box
      </Menu.Item>
      <Menu.Divider />
      {own ? (
        <Menu.Item color="var(--danger)" leftSection={<IconTrash size={16} />} onClick={() => show("delete")}>
          Delete
        </Menu.Item>
      ) : (
        <>
          <Menu.Item
            leftSection={<IconVolumeOff size={16} />}
            onClick={() => void relate("mutes", `You won't see @${post.author.handle} any more.`)}
          >
            Mute @{post.author.handle}
          </Menu.Item>
          <Menu.Item
            color="var(--danger)"
            leftSection={<IconUserOff size={16} />}
            onClick={() => void relate("blocks", `@${post.author.handle} is blocked.`)}
          >
            Block @{post.author.handle}
          </Menu.Item>
        </>
      )}
    </>
  );
}

