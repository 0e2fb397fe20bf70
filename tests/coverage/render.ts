import { execFileSync } from "node:child_process";
import process from "node:process";
import type { Claim, Claims, Kind, Proofs } from "./claims.ts";
import { exceptionOf } from "./check.ts";
import { type Row, rows } from "./rows.ts";
import { remarks } from "./rules.ts";

const INTRODUCTION = `
# What is proven, and by whom

This page is written by \`deno task coverage\` from the message table, the feature tables and
[what tests have seen](../tests/coverage/evidence.json); do not edit it. Continuous integration runs all tests
with the real programs, and fails when one of these claims was not seen again.

- **Codec**: the bytes of the message and of its answer, written down by hand, are read and written
  ([frontend_vectors.ts](../tests/protocol/frontend_vectors.ts),
  [backend_vectors.ts](../tests/protocol/backend_vectors.ts)).
- **Our back-end with**: front-ends that have sent it (a message of the back-end channel: that have taken it).
  It was handled without an error, and where there is an answer, that was no failure ("there is none" is an answer
  to SHARED_OBJECT_LOOKUP).
- **Our front-end with**: back-ends that have answered it well (a message of the back-end channel: that have
  sent it).
- A feature counts when it was acknowledged *and* what it stands for was done: one of its messages was
  handled, or requests on a ring were completed, through an indirect table for INDIRECT_DESC, with marks in the
  dirty log for LOG_ALL; the rules are in [rules.ts](../tests/coverage/rules.ts).
- Each name is a link to one test in which it happened. Who was at the other end is what the kernel says of the
  socket, not what the test says. *ours* is our own other side.
`;

const SECTIONS: readonly (readonly [Kind, string, string])[] = [
  ["front-end messages", "Messages from the front-end", "A front-end sends these to the back-end."],
  [
    "back-end messages",
    "Messages from the back-end",
    "A back-end sends these on the channel of SET_BACKEND_REQ_FD.",
  ],
  ["protocol features", "Protocol features", "Bits of GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES."],
  [
    "ring features",
    "Ring features",
    "Bits of GET_FEATURES and SET_FEATURES that are not of a device type.",
  ],
];

/** `real/guest_blk_test.ts` as the name of a link. */
function linkName(test: string): string {
  return test.replace(/_test\.ts$/, "");
}

function peers(proofs: Proofs | undefined): string {
  if (proofs === undefined) return "—";
  const names = Object.keys(proofs);
  // Our own other side is worth a word where there is nobody else.
  const real = names.filter((name) => name !== "ours");
  return (real.length > 0 ? real : names).map((name) =>
    `[${name === "ours" ? "_ours_" : name}][${linkName(proofs[name])}]`
  ).join(", ");
}

function cells(kind: Kind, { id, name, aliases }: Row, claim: Claim): string[] {
  const exception = exceptionOf(kind, name);
  const said = (remarks[kind] as Readonly<Record<string, string>>)[name];
  const remark = exception !== undefined
    ? `; ${exception.kind}: ${exception.reason}`
    : said !== undefined
    ? `; ${said}`
    : "";
  const code = (text: string): string => `\`${text}\``;
  const title = `${code(name)}${aliases.length === 0 ? "" : ` (${aliases.map(code).join(", ")})`}${remark}`;
  return [
    String(id),
    title,
    ...kind.endsWith("messages") ? [claim.codec === true ? "yes" : "—"] : [],
    peers(claim["back-end"]),
    peers(claim["front-end"]),
  ];
}

function table(kind: Kind, claims: Claims): string[] {
  const heads = [
    ...kind.endsWith("messages") ? ["id", "message", "codec"] : ["bit", "feature"],
    "our back-end with",
    "our front-end with",
  ];
  const lines = rows[kind].map((row) => cells(kind, row, claims[kind]?.[row.name] ?? {}));
  return [heads, heads.map(() => "---"), ...lines].map((line) => `| ${line.join(" | ")} |`);
}

/** Every test that is named. */
function tests(claims: Claims): string[] {
  const found = Object.values(claims).flatMap((names) =>
    Object.values(names).flatMap((claim) =>
      (["back-end", "front-end"] as const).flatMap((side) => Object.values(claim[side] ?? {}))
    )
  );
  return [...new Set(found)].sort();
}

/** The page, in the form that `deno fmt` gives it. */
export function render(claims: Claims): string {
  const sections = SECTIONS.flatMap((
    [kind, title, text],
  ) => ["", `## ${title}`, "", text, "", ...table(kind, claims)]);
  const links = tests(claims).map((test) => `[${linkName(test)}]: ../tests/${test}`);
  const text = [INTRODUCTION.trim(), ...sections, "", ...links, ""].join("\n");
  return execFileSync(process.execPath, ["fmt", "--ext=md", "-"], {
    cwd: new URL("../../", import.meta.url),
    input: text,
    encoding: "utf8",
  });
}
