/**
 * A session as a Mermaid diagram, drawn from what `vhost-user trace --json` has written of it.
 *
 * @module
 */

/** The members that are looked at, of a line of the trace. */
interface Line {
  readonly type: string;
  readonly from: "front-end" | "back-end";
  readonly name: string;
  readonly reply: boolean;
  readonly needReply: boolean;
  readonly kind: string;
  readonly payload: unknown;
  readonly bits?: readonly string[];
  readonly descriptors: readonly { readonly kind: string }[];
}

/** What is said before the first message of a kind. */
const CHAPTERS: Readonly<Record<string, string>> = {
  GET_FEATURES: "What can both do?",
  GET_CONFIG: "What does the driver see?",
  ADD_MEM_REG: "Memory: a descriptor that both map",
  SET_VRING_NUM: "A ring: its size, its place in that memory, two eventfds",
};

/** What a payload says to people. Sizes and addresses, which differ from run to run, are left out. */
function describe({ kind, payload, bits, name, reply }: Line): string {
  if (bits !== undefined) return ` ${bits[0]}${bits.length > 1 ? ` and ${bits.length - 1} more` : ""}`;
  if (kind === "u64") return ` ${Number(payload)}`;
  if (kind === "vringState") {
    const { index, num } = payload as { index: number; num: number };
    return ` ring ${index}: ${num}`;
  }
  if (kind === "vringAddress" || kind === "vringDescriptor") {
    return ` ring ${(payload as { index: number }).index}`;
  }
  return name === "GET_CONFIG" && reply ? " the configuration space" : "";
}

/** A message as it is drawn; nothing for one that only acknowledges. */
function draw(line: Line): string | undefined {
  if (line.kind === "ack") return undefined;
  const arrow = line.from === "front-end" ? "F->>B" : "B-->>F";
  const descriptors = line.descriptors.map(({ kind }) => ` + ${kind}`).join("");
  return `  ${arrow}: ${`${line.reply ? "" : line.name}${describe(line)}${descriptors}`.trim()}`;
}

/** The diagram of the first session in a trace. */
export function sessionDiagram(trace: string): string[] {
  const lines = trace.trim().split("\n").map((text) => JSON.parse(text) as Line);
  const steps: string[] = [];
  const told = new Set<string>();
  for (const line of lines.filter(({ type }) => type === "message")) {
    const step = draw(line);
    if (step === undefined) continue;
    const chapter = line.reply ? undefined : CHAPTERS[line.name];
    if (chapter !== undefined && !told.has(line.name)) {
      steps.push(`  Note over F,B: ${chapter}`);
      told.add(line.name);
    }
    steps.push(step);
  }
  return [
    "```mermaid",
    "sequenceDiagram",
    "  participant F as front-end: qemu-io",
    "  participant B as back-end: vhost-user blk",
    ...withoutRepeats(steps),
    "  Note over F,B: From here on requests go by the ring, and nothing by the socket",
    "  F--)B: kick (eventfd): there are requests",
    "  B--)F: call (eventfd): there are answers",
    "```",
  ];
}

/** Leaves out a question with its answer that came before. */
function withoutRepeats(steps: readonly string[]): string[] {
  const kept: string[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < steps.length; i++) {
    const pair = steps[i + 1]?.startsWith("  B-->>F") === true ? `${steps[i]}\n${steps[i + 1]}` : "";
    if (pair !== "" && seen.has(pair)) i++;
    else kept.push(steps[i]);
    seen.add(pair);
  }
  return kept;
}
