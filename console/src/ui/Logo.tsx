/** A whole that is a part: the mark of Holon. */
export function Logo({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="9" fill="#5753c6" />
      <circle cx="16" cy="16" r="9" fill="none" stroke="#fff" strokeWidth="2.4" />
      <circle cx="16" cy="12.6" r="3.3" fill="#fff" />
      <circle cx="12.4" cy="19" r="2" fill="#fff" opacity="0.75" />
      <circle cx="19.6" cy="19" r="2" fill="#fff" opacity="0.75" />
    </svg>
  );
}
