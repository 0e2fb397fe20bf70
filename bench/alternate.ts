import { type Figures, summarize } from "./stats.ts";

/** Called for each subject in turn. Round -1 is the first, whose figures do not count. */
export type Measure<S> = (subject: S, round: number) => Promise<Readonly<Record<string, number>>>;

/**
 * Measures several subjects in turn, round by round, so that what the machine does meanwhile hits all of them. Every other
 * round goes backwards, so that nobody is always measured after the same one. One round goes ahead that does not count:
 * nothing is compiled or cached yet.
 *
 * @returns figures by what was measured, then by subject
 */
export async function alternate<S extends { readonly name: string }>(
  subjects: readonly S[],
  rounds: number,
  measure: Measure<S>,
): Promise<Record<string, Record<string, Figures>>> {
  const found: Record<string, Record<string, number[]>> = {};
  for (let round = -1; round < rounds; round++) {
    for (const subject of round % 2 === 0 ? subjects : [...subjects].reverse()) {
      const figures = await measure(subject, round);
      if (round < 0) continue;
      for (const [what, figure] of Object.entries(figures)) {
        ((found[what] ??= {})[subject.name] ??= []).push(figure);
      }
    }
  }
  // In the order of the subjects, not in that of the last round.
  return Object.fromEntries(
    Object.entries(found).map(([what, bySubject]) => [
      what,
      Object.fromEntries(
        subjects.flatMap(({ name }) =>
          bySubject[name] === undefined ? [] : [[name, summarize(bySubject[name])]]
        ),
      ),
    ]),
  );
}
