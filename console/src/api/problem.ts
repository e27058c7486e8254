/** A failed call, as the server's problem document (RFC 9457) tells it. */
export class Problem extends Error {
  readonly status: number;
  readonly type: string;
  readonly title: string;
  readonly detail: string;
  /** The field of the request at fault, if one is. */
  readonly field: string | undefined;
  readonly requestId: string | undefined;
  /** Seconds to wait before the next try, if the server said so. */
  readonly retryAfter: number | undefined;

  constructor(parts: {
    status: number;
    type?: string;
    title?: string;
    detail?: string;
    field?: string;
    requestId?: string;
    retryAfter?: number;
  }) {
    const title = parts.title ?? "Something went wrong";
    super(parts.detail ?? title);
    this.name = "Problem";
    this.status = parts.status;
    this.type = parts.type ?? "about:blank";
    this.title = title;
    this.detail = parts.detail ?? title;
    this.field = parts.field;
    this.requestId = parts.requestId;
    this.retryAfter = parts.retryAfter;
  }

  /** No answer at all: the network or the server is away. */
  get unreachable(): boolean {
    return this.status === 0;
  }
}

export function unreachable(): Problem {
  return new Problem({
    status: 0,
    title: "No connection",
    detail: "The server can't be reached. Check your connection and try again.",
  });
}

/** Reads the problem out of a failed response, whatever stands in its body. */
export async function problemOf(response: Response): Promise<Problem> {
  const retryAfter = Number(response.headers.get("Retry-After"));
  const known = {
    status: response.status,
    requestId: response.headers.get("X-Request-Id") ?? undefined,
    retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : undefined,
  };
  if (!(response.headers.get("Content-Type") ?? "").includes("json")) {
    return new Problem({ ...known, title: response.statusText || `The server answered ${response.status}` });
  }
  const body: unknown = await response.json().catch(() => null);
  if (typeof body !== "object" || body === null) return new Problem(known);
  const text = (name: string): string | undefined => {
    const value = (body as Record<string, unknown>)[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  return new Problem({
    ...known,
    type: text("type"),
    title: text("title"),
    detail: text("detail"),
    // A place in the body comes as a JSON pointer, one in the query as a name.
    field: text("field")?.replace(/^\//, ""),
    requestId: text("requestId") ?? known.requestId,
  });
}

/** What to show a person for anything that was thrown. */
export function sentence(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (text === "") return "Something went wrong.";
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}
