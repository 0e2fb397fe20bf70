/**
 * A run's results as a table, as JSON and as JUnit.
 *
 * @module
 */

import type { Verdict } from "./finding.ts";
import { featureNames, protocolFeatures, ringFeatures } from "../../protocol/features.ts";
import { deviceTypes } from "../device_types.ts";
import type { Paint, Style } from "../paint.ts";
import { AS_EXPECTED, type CaseResult, type Report } from "./run.ts";

/** Verdicts, worst first. */
const verdicts: readonly Verdict[] = ["fail", "undefined by the specification", "not offered", "pass"];

/** How a verdict looks in a line. */
const marks: Readonly<Record<Verdict, string>> = {
  "pass": "✓",
  "fail": "✗",
  "not offered": "-",
  "undefined by the specification": "?",
};

/** Colours by verdict. */
const colours: Readonly<Record<Verdict, Style>> = {
  "pass": "green",
  "fail": "red",
  "not offered": "gray",
  "undefined by the specification": "yellow",
};

/** Names of what is offered, for people. */
function offerNames({ device, offer: { features, protocol } }: Pick<Report, "device" | "offer">): {
  features: string[];
  protocol: string[];
} {
  return {
    features: featureNames(features, { ...ringFeatures, ...deviceTypes[device] }),
    protocol: featureNames(protocol, protocolFeatures),
  };
}

/** All results of a run. */
export function resultsOf({ groups }: Report): CaseResult[] {
  return groups.flatMap(({ results }) => results);
}

/** How many results there are of each verdict. */
export function countVerdicts(report: Report): Record<Verdict, number> {
  const counts = Object.fromEntries(verdicts.map((each) => [each, 0])) as Record<Verdict, number>;
  for (const { verdict } of resultsOf(report)) counts[verdict]++;
  return counts;
}

/** A table for people, line by line. */
export class TextReport {
  readonly #paint: Paint;
  readonly #all: boolean;
  readonly #width: number;
  readonly #absent: CaseResult[] = [];
  #group = "";

  /**
   * A report.
   *
   * @param width of the column for the names of the cases
   * @param paint colours the lines
   * @param all whether cases that make no sense for the back-end have lines of their own
   */
  constructor(width: number, paint: Paint, all: boolean) {
    this.#width = width;
    this.#paint = paint;
    this.#all = all;
  }

  /** Lines for a result; the first of a group has its heading before it. */
  result(group: string, result: CaseResult): string[] {
    const lines: string[] = [];
    if (group !== this.#group) {
      lines.push(...this.flush());
      if (this.#group !== "") lines.push("");
      this.#group = group;
      lines.push(this.#paint("bold", group));
    }
    const { id, title, section, verdict, expected, got, output } = result;
    const name = id.padEnd(this.#width);
    if (verdict === "not offered" && !this.#all) {
      this.#absent.push(result);
      return lines;
    }
    const detail = verdict === "fail" || got === AS_EXPECTED ? "" : `: ${got}`;
    const head = `${this.#paint(colours[verdict], marks[verdict])} ${name}`;
    lines.push(`  ${head}  ${title}${detail}  ${this.#paint("gray", `(${section})`)}`);
    if (verdict === "fail") {
      lines.push(`      expected  ${expected}`, `      got       ${got}`);
      if (output !== undefined) {
        const last = output.trimEnd().split("\n").slice(-5);
        lines.push("      it wrote", ...last.map((line) => `        ${line}`));
      }
    }
    return lines;
  }

  /** What is left to be said of a group. */
  flush(): string[] {
    const absent = this.#absent.splice(0);
    if (absent.length === 0) return [];
    const missing = [...new Set(absent.map(({ got }) => got))].join("; ");
    return [`  ${this.#paint("gray", `- ${absent.length} not tried, for want of ${missing}`)}`];
  }

  /** What the back-end offers. */
  head(report: Pick<Report, "socket" | "device" | "offer">): string[] {
    const { features, protocol } = offerNames(report);
    return [
      `${report.socket} as ${report.device}`,
      `  features           ${features.join(" ")}`,
      `  protocol features  ${protocol.join(" ") || "none"}`,
      `  rings              ${report.offer.queues ?? "not told"}`,
      "",
    ];
  }

  /** The last lines. */
  summary(report: Report): string[] {
    const counts = countVerdicts(report);
    const parts = verdicts.filter((verdict) => counts[verdict] > 0).map((verdict) =>
      this.#paint(colours[verdict], `${counts[verdict]} ${verdict}`)
    );
    return [...this.flush(), "", `${resultsOf(report).length} cases: ${parts.join(", ")}`];
  }
}

/** A mask as JSON has it, which knows no numbers of 64 bits. */
function hex(mask: bigint): string {
  return `0x${mask.toString(16)}`;
}

/** A run as an object for JSON. */
export function jsonReport(report: Report, version: string): unknown {
  const { socket, device, offer, groups } = report;
  return {
    tool: `vhost-user check ${version}`,
    socket,
    device,
    offer: {
      features: hex(offer.features),
      protocolFeatures: hex(offer.protocol),
      queues: offer.queues ?? null,
      names: offerNames(report),
    },
    counts: countVerdicts(report),
    cases: groups.flatMap(({ title: group, results }) =>
      results.map(({ id, title, section, verdict, expected, got, duration, output }) => ({
        id,
        group,
        title,
        section,
        result: verdict,
        expected,
        got,
        output,
        milliseconds: Math.round(duration * 10) / 10,
      }))
    ),
  };
}

/** Text in XML. */
function escaped(text: string): string {
  // Control characters cannot be in XML at all.
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd").replace(
    /[&<>"]/g,
    (each) => `&#${each.charCodeAt(0)};`,
  );
}

/** A run as JUnit XML, for continuous integration. */
export function junitReport(report: Report): string {
  const seconds = (ms: number): string => (ms / 1000).toFixed(3);
  const attributes = (results: readonly CaseResult[]): string => {
    const count = (verdict: Verdict) => results.filter((each) => each.verdict === verdict).length;
    const time = results.reduce((sum, { duration }) => sum + duration, 0);
    return `tests="${results.length}" failures="${count("fail")}" skipped="${count("not offered")}" ` +
      `time="${seconds(time)}"`;
  };
  const testcase = ({ id, title, section, verdict, expected, got, duration }: CaseResult): string => {
    const head = `    <testcase classname="${escaped(id.replace(/\.[^.]*$/, ""))}" ` +
      `name="${escaped(`${id}: ${title}`)}" time="${seconds(duration)}"`;
    const inner: Partial<Record<Verdict, string>> = {
      "fail": `<failure message="${escaped(got)}">${
        escaped(`expected ${expected}\ngot ${got}\nsee ${section}`)
      }</failure>`,
      "not offered": `<skipped message="${escaped(`not offered: ${got}`)}"/>`,
      "undefined by the specification": `<system-out>${escaped(`${verdict}: ${got}`)}</system-out>`,
    };
    const body = inner[verdict];
    return body === undefined ? `${head}/>` : `${head}>${body}</testcase>`;
  };
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="vhost-user check ${escaped(report.socket)}" ${attributes(resultsOf(report))}>`,
    ...report.groups.flatMap(({ title, results }) => [
      `  <testsuite name="${escaped(title)}" ${attributes(results)}>`,
      ...results.map(testcase),
      "  </testsuite>",
    ]),
    "</testsuites>",
    "",
  ].join("\n");
}
