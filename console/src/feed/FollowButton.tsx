import { Button } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as feed from "../api/feed";
import { showProblem } from "../ui/notify";
import { removeAuthor } from "./cache";

/** Follows and unfollows. Shows the wish at once; `onChange` lets the page around it follow suit. */
export function FollowButton({
  person,
  following,
  onChange,
}: {
  person: { id: string; handle: string };
  following: boolean;
  onChange?: (following: boolean) => void;
}) {
  const client = useQueryClient();
  const [hovered, setHovered] = useState(false);
  const follow = useMutation({
    mutationFn: (on: boolean) => feed.setRelation("follows", person.handle, on),
    onMutate: (on) => onChange?.(on),
    onSuccess: (_, on) => {
      if (!on) removeAuthor(client, person.id);
      else void client.invalidateQueries({ queryKey: ["home"] });
    },
    onError: (error, on) => {
      onChange?.(!on);
      showProblem(error);
    },
  });
  const shown = follow.isPending ? follow.variables : following;
  return (
    <Button
      size="xs"
      radius="xl"
      w={104}
      variant={shown ? "default" : "filled"}
      aria-pressed={shown}
      onClick={() => follow.mutate(!shown)}
      onMouseEnter={() => setHovered(true)}
      onMouseLeave={() => setHovered(false)}
    >
      {shown ? (hovered ? "Unfollow" : "Following") : "Follow"}
    </Button>
  );
}
