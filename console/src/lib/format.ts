/** Numbers and times for people, in their own language. */

const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const dayInYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const dayAndYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const monthAndYear = new Intl.DateTimeFormat(undefined, { month: "long", year: "numeric" });

export const shortNumber = (value: number): string => (value < 10_000 ? whole.format(value) : compact.format(value));
export const fullNumber = (value: number): string => whole.format(value);
export const fullTime = (time: string): string => moment.format(new Date(time));
export const clockTime = (time: string): string => clock.format(new Date(time));
export const month = (time: string): string => monthAndYear.format(new Date(time));

/** `now`, `5s`, `12m`, `3h`, `2d`, then the date. */
export function age(time: string, now: number): string {
  const then = new Date(time);
  const seconds = Math.max(0, Math.round((now - then.getTime()) / 1000));
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h`;
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)}d`;
  return then.getFullYear() === new Date(now).getFullYear() ? dayInYear.format(then) : dayAndYear.format(then);
}

/** `3 d 4 h`, `4 h 12 min`, `12 min`, `40 s`. */
export function duration(seconds: number): string {
  const total = Math.max(0, Math.floor(seconds));
  const days = Math.floor(total / 86_400);
  const hours = Math.floor((total % 86_400) / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min`;
  return `${total} s`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let rest = value;
  let unit = 0;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${rest < 10 && unit > 0 ? rest.toFixed(1) : Math.round(rest)} ${units[unit] ?? "B"}`;
}

export function milliseconds(value: number): string {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  if (value >= 10) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(1)} ms`;
  return `${value.toFixed(2)} ms`;
}

export function perSecond(value: number): string {
  if (value >= 100) return whole.format(value);
  if (value === 0) return "0";
  return value.toFixed(value < 10 ? 1 : 0);
}

export function percent(part: number): string {
  if (part > 0 && part < 0.0005) return "<0.1%";
  return `${(part * 100).toFixed(part > 0 && part < 0.1 ? 1 : 0)}%`;
}
