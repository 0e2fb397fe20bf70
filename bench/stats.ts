/** Middle and spread of some figures. */
export interface Summary {
  /** The smallest. */
  readonly min: number;
  /** The middle one: half are smaller. */
  readonly median: number;
  /** The largest. */
  readonly max: number;
}

/** Sums figures up. */
export function summarize(figures: readonly number[]): Summary {
  const sorted = [...figures].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return {
    min: sorted[0],
    median: (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2,
    max: sorted[sorted.length - 1],
  };
}
