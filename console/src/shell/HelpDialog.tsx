import { Kbd, Modal } from "@mantine/core";
import { Fragment } from "react";
import classes from "./HelpDialog.module.css";
import { shortcutGroups } from "./shortcuts";

export default function HelpDialog({ close }: { close: () => void }) {
  return (
    <Modal opened onClose={close} title="Keyboard shortcuts" size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <div className={classes.groups}>
        {shortcutGroups.map((group) => (
          <section key={group.title}>
            <h3 className={classes.title}>{group.title}</h3>
            <dl className={classes.list}>
              {group.shortcuts.map((shortcut) => (
                <Fragment key={shortcut.keys}>
                  <dt>{shortcut.does}</dt>
                  <dd>
                    {shortcut.keys.split(" ").map((key) => (
                      <Kbd key={key} size="sm">
                        {key}
                      </Kbd>
                    ))}
                  </dd>
                </Fragment>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Modal>
  );
}
