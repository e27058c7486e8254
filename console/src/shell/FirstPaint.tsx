import { Logo } from "../ui/Logo";

/** Stands for the moment until the first page's code is here. */
export function FirstPaint() {
  return (
    <div style={{ display: "grid", placeItems: "center", height: "100dvh" }} role="status" aria-label="Loading">
      <Logo size={40} />
    </div>
  );
}
