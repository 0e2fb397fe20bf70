/** Some figures of the same thing, with their middle and spread. */
export interface Figures {
  /** The smallest. */
  readonly min: number;
  /** The middle one: half are smaller. */
  readonly median: number;
  /** The largest. */
  readonly max: number;
  /** All, in the order in which they were measured. */
  readonly rounds: readonly number[];
}

/** A figure below which a share of all are; between two figures in proportion. */
export function quantile(figures: readonly number[], share: number): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** Sums figures up. */
export function summarize(rounds: readonly number[]): Figures {
  return { min: Math.min(...rounds), median: quantile(rounds, 0.5), max: Math.max(...rounds), rounds };
}
