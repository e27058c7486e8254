import { Button, Group, Modal, Textarea } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as feed from "../api/feed";
import { sentence } from "../api/problem";
import type { Post } from "../api/types";
import { countCharacters, POST_LIMIT } from "../lib/text";
import { updatePost } from "./cache";

/** Changes a young post. Says so if it was changed elsewhere meanwhile, instead of writing over it. */
export default function EditDialog({ post, close }: { post: Post; close: () => void }) {
  const client = useQueryClient();
  const [text, setText] = useState(post.text);
  const current = useQuery({
    queryKey: ["post-version", post.id],
    queryFn: ({ signal }) => feed.post(post.id, signal),
    staleTime: 0,
    gcTime: 0,
    refetchOnWindowFocus: false,
  });
  const edit = useMutation({
    mutationFn: () => feed.editPost(post.id, text, current.data?.etag),
    onSuccess: (edited) => {
      updatePost(client, post.id, (shown) => ({ ...shown, ...edited, viewer: shown.viewer }));
      void client.invalidateQueries({ queryKey: ["history", post.id] });
      close();
    },
  });
  const left = POST_LIMIT - countCharacters(text);
  const error = edit.error ?? current.error;
  return (
    <Modal opened onClose={close} title="Edit the post" size={600} closeButtonProps={{ "aria-label": "Close" }}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          edit.mutate();
        }}
      >
        <Textarea
          data-autofocus
          autosize
          minRows={3}
          label="Text"
          description={`${left} characters left. Earlier versions stay visible in the post's history.`}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          error={error === null ? (left < 0 ? "Too long" : undefined) : sentence(error)}
        />
        <Group justify="flex-end" mt="md" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button
            type="submit"
            loading={edit.isPending}
            disabled={left < 0 || text.trim() === "" || text === post.text || current.isPending}
          >
            Save
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
