import { Modal } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import type { ComposeTarget } from "../shell/compose";
import { showDone } from "../ui/notify";
import { Composer } from "./Composer";
import { QuotedPost } from "./PostCard";

/** Writing a post, a reply or a quote over whatever page one is on. */
export default function ComposeDialog({ target, close }: { target: ComposeTarget; close: () => void }) {
  const phone = useMediaQuery("(max-width: 699px)", undefined, { getInitialValueInEffect: false }) ?? false;
  const titles = { post: "New post", reply: "Reply", quote: "Quote" };
  return (
    <Modal
      opened
      onClose={close}
      title={titles[target.kind]}
      size={600}
      fullScreen={phone}
      yOffset="10vh"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {target.kind === "reply" && (
        <div style={{ marginBottom: 14 }}>
          <QuotedPost post={target.to} />
        </div>
      )}
      <Composer
        autoFocus
        minRows={3}
        label={titles[target.kind]}
        action={target.kind === "reply" ? "Reply" : "Post"}
        placeholder={
          target.kind === "reply"
            ? `Reply to @${target.to.author.handle}`
            : target.kind === "quote"
              ? "Say something about it"
              : "What's happening?"
        }
        initialText={target.kind === "post" ? target.text : undefined}
        replyTo={target.kind === "reply" ? target.to.id : undefined}
        quoteOf={target.kind === "quote" ? target.of.id : undefined}
        onDone={() => {
          close();
          showDone(target.kind === "reply" ? "Your reply is out." : "Your post is out.");
        }}
      >
        {target.kind === "quote" && <QuotedPost post={target.of} />}
      </Composer>
    </Modal>
  );
}
