import { Problem, sentence } from "../api/problem";

/** What a failed call says of one field of its form. */
export function fieldError(error: unknown, field: string): string | undefined {
  return error instanceof Problem && error.field === field ? sentence(error) : undefined;
}

/** What a failed call says that belongs to none of the form's fields. */
export function formError(error: unknown, fields: readonly string[]): string | undefined {
  if (error === null || error === undefined) return undefined;
  if (error instanceof Problem && error.field !== undefined && fields.includes(error.field)) return undefined;
  if (error instanceof Problem && error.retryAfter !== undefined) {
    return `${sentence(error)} Try again in ${Math.ceil(error.retryAfter)} s.`;
  }
  return sentence(error);
}
