import type { Findings, Row, Subject } from "./bench.ts";
import { type Figures, summarize } from "./stats.ts";
import { markdownTable } from "./table.ts";

/** The peer that did best at a point, if any was measured. */
export function bestPeer(row: Row, subjects: readonly Subject[]): string | undefined {
  const better = (a: string, b: string): string => {
    const [x, y] = [row.figures[a].median, row.figures[b].median];
    return (row.better === "more" ? x >= y : x <= y) ? a : b;
  };
  const peers = subjects.filter(({ name, peer }) => peer && row.figures[name] !== undefined);
  return peers.length === 0 ? undefined : peers.map(({ name }) => name).reduce(better);
}

/** How much better the first is than the second, round by round: above 1 it is better. */
export function advantage(row: Row, of: string, over: string): Figures | undefined {
  const [a, b] = [row.figures[of], row.figures[over]];
  if (a === undefined || b === undefined) return undefined;
  return summarize(
    a.rounds.map((figure, i) => row.better === "more" ? figure / b.rounds[i] : b.rounds[i] / figure),
  );
}

function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

function spread({ min, median, max }: Figures, divisor = 1): string {
  return `${digits(median / divisor)} (${digits(min / divisor)}–${digits(max / divisor)})`;
}

/** Rates are shown in thousands where some have that many. */
function unitOf(rows: readonly Row[]): { unit: string; divisor: number } {
  const [{ unit }] = rows;
  const many = rows.some(({ figures }) => Object.values(figures).some(({ median }) => median >= 10_000));
  return many && unit.endsWith("/s") ? { unit: `thousand ${unit}`, divisor: 1000 } : { unit, divisor: 1 };
}

/** The result as text: a table for each unit. */
export function reportText(findings: Findings, rounds: number, where: string): string {
  const { title, subjects, rows, notes = [] } = findings;
  const ours = subjects.filter(({ peer, name }) => !peer && rows.some(({ figures }) => name in figures));
  const units = [...new Set(rows.map(({ unit }) => unit))];
  const compared = rows.some((row) => bestPeer(row, subjects) !== undefined);
  return [
    title,
    `Median (least–most) of ${rounds} rounds, all alternating in one run.${
      compared ? ` Ratio: '${ours[0]?.name}' against the best peer, above 1 is in our favour.` : ""
    }`,
    where,
    ...notes.map((note) => `Note: ${note}`),
    ...units.flatMap((unit) => {
      const some = rows.filter((row) => row.unit === unit);
      return ["", `${unitOf(some).unit}, ${some[0].better} is better:`, "", table(some, ours, subjects)];
    }),
  ].join("\n");
}

function table(rows: readonly Row[], ours: readonly Subject[], subjects: readonly Subject[]): string {
  const axes = [...new Set(rows.flatMap(({ point }) => Object.keys(point)))];
  const compared = rows.some((row) => bestPeer(row, subjects) !== undefined);
  const { divisor } = unitOf(rows);
  return markdownTable([
    [...axes, ...ours.map(({ name }) => name), ...compared ? ["best peer", "which", "ratio"] : []],
    ...rows.map((row) => {
      const cell = (name: string | undefined): string => {
        const figures = name === undefined ? undefined : row.figures[name];
        return figures === undefined ? "–" : spread(figures, divisor);
      };
      const best = bestPeer(row, subjects);
      const ratio = best === undefined || ours.length === 0 ? undefined : advantage(row, ours[0].name, best);
      return [
        ...axes.map((axis) => String(row.point[axis] ?? "")),
        ...ours.map(({ name }) => cell(name)),
        ...compared ? [cell(best), best ?? "–", ratio === undefined ? "–" : spread(ratio)] : [],
      ];
    }),
  ]);
}
