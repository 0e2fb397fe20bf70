/**
 * What a mistyped word may have meant.
 *
 * @module
 */

/** How many letters are wrong, missing, too many or exchanged with their neighbour (optimal string alignment). */
export function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      row[j] = Math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (same ? 0 : 1));
      const exchanged = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (exchanged) row[j] = Math.min(row[j], rows[i - 2][j - 2] + 1);
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
}

/** The one of some words that a mistyped one is nearest to, if it is near to any. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  // Nobody mistypes at such length, and the time taken grows with the square of it.
  if (word.length === 0 || word.length > 64) return undefined;
  const beginning = known.filter((each) => each.startsWith(word));
  if (beginning.length === 1) return beginning[0];
  const ranked = known.map((each) => [distance(word, each), each] as const).sort(([a], [b]) => a - b);
  const [[least, best] = [Infinity, ""]] = ranked;
  return least <= Math.max(1, Math.floor(Math.max(word.length, best.length) / 3)) ? best : undefined;
}

/** `; did you mean 'X'?`, or nothing. */
export function didYouMean(word: string, known: readonly string[], prefix = ""): string {
  const found = nearest(word, known);
  return found === undefined ? "" : `; did you mean '${prefix}${found}'?`;
}
