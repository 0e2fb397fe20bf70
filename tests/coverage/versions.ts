import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { type PeerProgram, programs, type Version } from "./programs.ts";

function output(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", timeout: 20_000 });
}

/** The text in which a program's version is. */
function textOf(file: string, { at }: Version): string {
  // What was unpacked may not start without the libraries that were unpacked with it.
  const unpacked = new URL("../../version", `file://${file}`);
  if (existsSync(unpacked)) return readFileSync(unpacked, "utf8");
  if (at === "--version") return output(file, at);
  if (at === "name") return file;
  return output("dpkg-query", "--show", output("dpkg-query", "--search", file).split(":")[0]);
}

/**
 * A peer by name and version, or `undefined` for one that is not in the table.
 *
 * @throws {Error} when it does not tell its version
 */
export function versionOf({ name, file }: PeerProgram): string | undefined {
  if (name === "ours") return name;
  const program = programs.find((each) => each.name === name);
  if (program === undefined || file === undefined) return undefined;
  const text = textOf(file, program.version);
  const version = program.version.is.exec(text)?.[1];
  if (version === undefined) throw new Error(`${file}: no version in ${JSON.stringify(text.slice(0, 200))}`);
  return `${name} ${version}`;
}
