/** The last values of one figure as a small line; the newest at the right. */
export function Sparkline({
  values,
  label,
  width = 132,
  height = 30,
  slots = 60,
}: {
  values: number[];
  label: string;
  width?: number;
  height?: number;
  slots?: number;
}) {
  const highest = Math.max(...values, 1e-9);
  const step = width / (slots - 1);
  const from = slots - values.length;
  const points = values.map((value, index) => {
    const x = (from + index) * step;
    const y = height - 2 - (value / highest) * (height - 5);
    return [x, y] as const;
  });
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const first = points[0];
  const last = points[points.length - 1];
  return (
    <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label} style={{ display: "block", maxWidth: "100%" }}>
      <line x1="0" x2={width} y1={height - 1} y2={height - 1} stroke="var(--border)" />
      {first !== undefined && last !== undefined && (
        <>
          <polygon points={`${first[0]},${height - 1} ${line} ${last[0]},${height - 1}`} fill="var(--accent)" opacity="0.13" />
          <polyline points={line} fill="none" stroke="var(--accent)" strokeWidth="1.6" strokeLinejoin="round" />
          <circle cx={last[0] - 2} cy={last[1]} r="2.2" fill="var(--accent)" />
        </>
      )}
    </svg>
  );
}
