import { notifications } from "@mantine/notifications";
import { Problem, sentence } from "../api/problem";

/** Tells of something that did not work and has no place of its own on the page. */
export function showProblem(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  // A session that ended shows itself: the sign-in page comes.
  if (error instanceof Problem && error.status === 401) return;
  const problem = error instanceof Problem ? error : null;
  notifications.show({
    id: problem === null ? undefined : `${problem.status} ${problem.detail}`,
    color: "red",
    title: problem?.title ?? "Something went wrong",
    message: problem === null || problem.detail !== problem.title ? sentence(error) : undefined,
    withBorder: true,
    closeButtonProps: { "aria-label": "Close this message" },
  });
}

export function showDone(message: string): void {
  notifications.show({ message, withBorder: true, autoClose: 3000, closeButtonProps: { "aria-label": "Close this message" } });
}
