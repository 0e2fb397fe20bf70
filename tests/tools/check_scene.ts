import { join } from "node:path";
import { defineDevice, type Device, serve, type ServeOptions } from "../../mod.ts";
import {
  type CaseResult,
  check,
  type CheckOptions,
  type Report,
  resultsOf,
  RunningTarget,
} from "../../src/tools/check/mod.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { FakeBackEnd } from "./fake_backend.ts";
import { closeLeaks, type Fault } from "./fake_faults.ts";

/** How long a case waits for an answer, ms: nothing that works takes as long, on however busy a machine. */
const PATIENCE = 3000;
/** How long a case waits before it says that nothing happens, ms. */
const QUIET = 30;

/** Checks what listens on a path. */
export async function checkPath(path: string, options: CheckOptions): Promise<Report> {
  return await check(new RunningTarget(path, options.patience ?? PATIENCE), {
    patience: PATIENCE,
    quiet: QUIET,
    timeout: 30_000,
    ...options,
  });
}

/** Checks a device of ours. */
export async function checkDevice(
  scope: Scope,
  device: Device,
  options: CheckOptions,
  serving: Partial<ServeOptions> = {},
): Promise<Report> {
  const socketPath = join(tempDir(scope), "socket");
  const server = await serve(device, { socketPath, log: () => {}, ...serving });
  onEnd(scope, () => server.close());
  return await checkPath(socketPath, options);
}

/** Checks the back-end that was made for these tests. */
export async function checkFake(
  scope: Scope,
  fault: Fault | undefined,
  options: CheckOptions,
): Promise<Report> {
  const path = join(tempDir(scope), "socket");
  const fake = new FakeBackEnd(path, fault);
  onEnd(scope, () => {
    fake.close();
    closeLeaks();
  });
  return await checkPath(path, { device: "rng", ...options });
}

/** An entropy device, as in the examples. */
export function entropy(): Device {
  return defineDevice({
    type: 4,
    queues: [(chain) => chain.write((bytes) => crypto.getRandomValues(bytes))],
  });
}

/** Failures, for people. */
export function failures(report: Report): string[] {
  return resultsOf(report).filter(({ verdict }) => verdict === "fail").map(({ id, expected, got }) =>
    `${id}: expected ${expected}, got ${got}`
  );
}

/** A result by the name of its case. */
export function resultOf(report: Report, id: string): CaseResult {
  const found = resultsOf(report).find((each) => each.id === id);
  if (found === undefined) throw new Error(`no result of ${id}`);
  return found;
}
