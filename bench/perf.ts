import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../tests/support/cleanup.ts";
import { which } from "../tests/support/path.ts";
import { run } from "../tests/support/process.ts";
import type { RingShape } from "./ring_trial.ts";

/** Why `perf stat` cannot count an event here; `undefined` when it can. */
export async function perfLacks(event: string): Promise<string | undefined> {
  const perf = which("perf");
  if (perf === undefined) return "perf is not installed";
  const { code, stderr } = await run(perf, ["stat", "-x", ",", "-e", event, "--", "true"], { check: false });
  if (code !== 0) return `perf stat -e ${event}: ${stderr.trim().split("\n")[0]}`;
  return /^[\d.]+,/.test(stderr) ? undefined : `perf stat -e ${event}: ${stderr.split(",")[0]}`;
}

/** Counts an event for each request of a ring: the device's side alone, as perf is told when to count. */
export async function perfRing(
  scope: Scope,
  event: string,
  shape: RingShape,
  count: number,
): Promise<number> {
  const perf = which("perf");
  if (perf === undefined) throw new Error("perf is not installed");
  const folder = tempDir(scope);
  const [control, answer, result] = ["control", "answer", "result"].map((name) => join(folder, name));
  await run("mkfifo", [control, answer]);
  const script = fileURLToPath(new URL("ring_count.ts", import.meta.url));
  const { stdout } = await run(perf, [
    ...[
      "stat",
      "-x",
      ",",
      "-e",
      event,
      "-o",
      result,
      "--delay=-1",
      `--control=fifo:${control},${answer}`,
      "--",
    ],
    ...[process.execPath, "run", "--allow-ffi", "--allow-read", "--allow-write", script],
    ...[JSON.stringify(shape), String(count), control, answer],
  ], { timeout: 120_000 });
  // Lines of remarks start with #.
  const line = readFileSync(result, "utf8").split("\n").find((each) => each.includes(`,${event},`)) ?? "";
  const total = Number(line.split(",")[0]);
  if (!(total >= 0) || line === "") throw new Error(`perf stat -e ${event} has counted nothing: ${line}`);
  return total / Number(stdout);
}
