import { createContext, useContext } from "react";
import type { Post } from "../api/types";

export type ComposeTarget = { kind: "post"; text?: string } | { kind: "reply"; to: Post } | { kind: "quote"; of: Post };

/** Opens the dialog to write a post, a reply or a quote. */
export const ComposeContext = createContext<(target: ComposeTarget) => void>(() => undefined);

export const useCompose = () => useContext(ComposeContext);
