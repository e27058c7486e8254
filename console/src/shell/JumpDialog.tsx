import { Modal, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import { useState, type FormEvent } from "react";
import { useNavigate } from "react-router";

/** Goes straight to a person, a tag or a post. */
export default function JumpDialog({ close }: { close: () => void }) {
  const [text, setText] = useState("");
  const navigate = useNavigate();
  const wish = text.trim();
  const place = wish.startsWith("#")
    ? `/tag/${encodeURIComponent(wish.slice(1).toLowerCase())}`
    : /^\d{6,}$/.test(wish)
      ? `/post/${wish}`
      : `/u/${encodeURIComponent(wish.replace(/^@/, "").toLowerCase())}`;

  const go = (event: FormEvent) => {
    event.preventDefault();
    if (wish.replace(/^[@#]/, "") === "") return;
    close();
    void navigate(place);
  };

  return (
    <Modal opened onClose={close} title="Go to" yOffset="14vh" closeButtonProps={{ "aria-label": "Close" }}>
      <form onSubmit={go}>
        <TextInput
          data-autofocus
          size="md"
          label="A person's handle, a #tag or a post's number"
          placeholder="@ada, #rust"
          leftSection={<IconSearch size={17} />}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          autoCapitalize="none"
          autoComplete="off"
          spellCheck={false}
          description="Enter opens it"
          inputWrapperOrder={["label", "input", "description"]}
        />
      </form>
    </Modal>
  );
}
