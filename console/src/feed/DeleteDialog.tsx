import { Button, Group, Modal } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useLocation, useNavigate } from "react-router";
import * as feed from "../api/feed";
import type { Post } from "../api/types";
import { showProblem } from "../ui/notify";
import { removePost } from "./cache";

export default function DeleteDialog({ post, close }: { post: Post; close: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const { pathname } = useLocation();
  const remove = useMutation({
    mutationFn: () => feed.deletePost(post.id),
    onSuccess: () => {
      close();
      if (pathname === `/post/${post.id}`) void navigate("/");
      removePost(client, post.id);
    },
    onError: showProblem,
  });
  return (
    <Modal opened onClose={close} title="Delete this post?" centered closeButtonProps={{ "aria-label": "Close" }}>
      It goes from every timeline at once and can't be brought back.
      <Group justify="flex-end" mt="lg" gap="xs">
        <Button variant="default" onClick={close} data-autofocus>
          Keep it
        </Button>
        <Button color="red.9" loading={remove.isPending} onClick={() => remove.mutate()}>
          Delete
        </Button>
      </Group>
    </Modal>
  );
}
