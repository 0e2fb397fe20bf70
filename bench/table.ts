/** Rows as a Markdown table that also reads well as it is; the first row is the head. Figures are set right. */
export function markdownTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(3, ...rows.map((row) => row[i].length)));
  const figures = rows[0].map((_, i) => rows.slice(1).every((row) => /^[\d.,× –~-]+$/.test(row[i])));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => figures[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join(" | ")} |`;
  const rule = `| ${
    widths.map((width, i) => figures[i] ? `${"-".repeat(width - 1)}:` : "-".repeat(width)).join(" | ")
  } |`;
  return [line(rows[0]), rule, ...rows.slice(1).map(line)].join("\n");
}
