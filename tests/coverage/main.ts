/**
 * `deno task coverage`: the documentation of what is proven. See `--help`.
 *
 * @module
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { broken, emptyRows } from "./check.ts";
import { type Claims, type Kind, KINDS, Sightings } from "./claims.ts";
import type { PeerProgram } from "./programs.ts";
import { versionOf } from "./versions.ts";
import { CODEC, SESSIONS } from "./record.ts";
import { render } from "./render.ts";
import { rows } from "./rows.ts";

const HELP = `Usage: deno task coverage [--merge=DIR | --check=DIR]

Writes docs/coverage.md from the message table, the feature tables and tests/coverage/evidence.json.

  --merge=DIR  First takes what a run of the tests has seen into evidence.json.
  --check=DIR  Writes nothing. Fails if docs/coverage.md is not what would be written, if a claim of
               evidence.json was not seen again in this run, or if a row is empty.

DIR is an empty folder that the run was given:
  VHOST_EVIDENCE=DIR VHOST_REAL=required deno task test
--merge forgets what it has not seen, so it takes a run of all tests, with all peers.
`;

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const EVIDENCE = file("evidence.json");
const PAGE = file("../../docs/coverage.md");

function fail(problem: string): never {
  console.error(`coverage: ${problem}`);
  process.exit(1);
}

function lines<T>(path: string): T[] {
  return readFileSync(path, "utf8").split("\n").filter((line) => line).map((line) => JSON.parse(line));
}

/** What a run has seen. */
function read(folder: string): Sightings {
  for (const name of [SESSIONS, CODEC]) {
    if (!existsSync(join(folder, name))) {
      fail(`${join(folder, name)} is not there: no test has recorded anything`);
    }
  }
  const known = new Map<string, string | undefined>();
  const label = (peer: PeerProgram): string | undefined => {
    const key = `${peer.name}|${peer.file}`;
    if (!known.has(key)) {
      const text = versionOf(peer);
      if (text === undefined) console.log(`coverage: ${peer.name} does not count: it is not in programs.ts`);
      known.set(key, text);
    }
    return known.get(key);
  };
  return new Sightings(lines(join(folder, SESSIONS)), lines(join(folder, CODEC)), label);
}

function committed(): Claims | undefined {
  return existsSync(EVIDENCE) ? JSON.parse(readFileSync(EVIDENCE, "utf8")) : undefined;
}

function claimsOf(seen: Sightings, before: Claims | undefined): Claims {
  const names = Object.fromEntries(KINDS.map((kind) => [kind, rows[kind].map(({ name }) => name)]));
  return seen.claims(names as Record<Kind, string[]>, before);
}

function check(folder: string): string[] {
  const claims = committed() ?? fail("there is no evidence.json");
  const seen = read(folder);
  console.log(`coverage: seen in this run: ${seen.peers.join(", ")}`);
  const page = existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "";
  return [
    ...page === render(claims) ? [] : ["docs/coverage.md is not what evidence.json says: deno task coverage"],
    ...broken(claims, seen),
    ...emptyRows(claims),
  ];
}

const { values } = parseArgs({
  options: { help: { type: "boolean" }, merge: { type: "string" }, check: { type: "string" } },
});
if (values.help) {
  console.log(HELP);
} else if (values.check !== undefined) {
  const problems = check(values.check);
  for (const problem of problems) console.error(`coverage: ${problem}`);
  if (problems.length > 0) fail(`${problems.length} problems`);
  console.log("coverage: every row is proven, and was again");
} else {
  const before = committed();
  const claims = values.merge === undefined
    ? before ?? fail("there is no evidence.json")
    : claimsOf(read(values.merge), before);
  if (values.merge !== undefined) writeFileSync(EVIDENCE, JSON.stringify(claims, null, 2) + "\n");
  writeFileSync(PAGE, render(claims));
  for (const gap of emptyRows(claims)) console.log(`still empty: ${gap}`);
}
