/**
 * A conformance run.
 *
 * @module
 */

import { has, protocolFeatures, ringFeatures } from "../../protocol/features.ts";
import type { Case } from "./case.ts";
import { CaseEnd, type DeviceKind, type Finding, type Needs, type Verdict } from "./finding.ts";
import { groups } from "./cases/mod.ts";
import { profiles } from "./profile.ts";
import { type Death, SpawnedTarget, type Target, TargetError } from "./target.ts";
import { type Offer, Trial, type TrialSettings } from "./trial.ts";

/** How a run is done. */
export interface CheckOptions extends Partial<TrialSettings> {
  /** Kind of device; `"any"` by default, which tries no requests. */
  readonly device?: DeviceKind;
  /** Cases to try, as {@link matches} reads them; all by default. */
  readonly filter?: readonly string[];
  /** Whether cases may write to the device. */
  readonly write?: boolean;
  /** How long a case may take, ms; 20 000 by default. */
  readonly timeout?: number;
  /** Called when it is known what the back-end offers. */
  readonly onOffer?: (found: Pick<Report, "socket" | "device" | "offer">) => void;
  /** Called before each case. */
  readonly onCase?: (group: string, each: Case, number: number, total: number) => void;
  /** Called after each case. */
  readonly onResult?: (group: string, result: CaseResult) => void;
}

/** What came of one case of a run. */
export interface CaseResult {
  /** The case's name. */
  readonly id: string;
  /** Its title. */
  readonly title: string;
  /** Where it is written. */
  readonly section: string;
  /** The outcome. */
  readonly verdict: Verdict;
  /** What is right. */
  readonly expected: string;
  /** What the back-end does, or lacks. */
  readonly got: string;
  /** How long it took, ms. */
  readonly duration: number;
  /** What the back-end wrote meanwhile, when it failed and was started by the run. */
  readonly output?: string;
}

/** What came of a run. */
export interface Report {
  /** The back-end's socket. */
  readonly socket: string;
  /** Kind of device. */
  readonly device: DeviceKind;
  /** What the back-end offers. */
  readonly offer: Offer;
  /** Results by group. */
  readonly groups: readonly { readonly title: string; readonly results: readonly CaseResult[] }[];
}

/** Whether a case is meant by one of several patterns: its name, the start of it up to a dot, or `*` for anything. */
export function matches(id: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(`^${parts.join(".*")}(\\..*)?$`, "i").test(id);
  });
}

/** The cases of a run, by group; groups without any are left out. */
export function selectCases(options: CheckOptions): { title: string; cases: Case[] }[] {
  const { device = "any", filter, write = false } = options;
  return groups.map(({ title, cases }) => ({
    title,
    cases: cases.filter(({ id, devices, writes }) =>
      (devices === undefined || devices.includes(device)) && (write || writes !== true) &&
      (filter === undefined || matches(id, filter))
    ),
  })).filter(({ cases }) => cases.length > 0);
}

/** Why a case makes no sense for this back-end, or `undefined`. */
function lacks(
  offer: Offer,
  { protocol = [], ring = [], device = {}, requests = false }: Needs,
  kind: DeviceKind,
): string | undefined {
  const missing: string[] = [];
  if (requests && profiles[kind] === undefined) {
    return "the kind of device is not known: say it with --device";
  }
  for (const name of ring) if (!has(offer.features, ringFeatures[name])) missing.push(name);
  for (const [name, bit] of Object.entries(device)) if (!has(offer.features, bit)) missing.push(name);
  for (const name of protocol) if (!has(offer.protocol, protocolFeatures[name])) missing.push(name);
  return missing.length === 0 ? undefined : missing.join(", ");
}

/** What came of a case that passes without a remark. */
export const AS_EXPECTED = "as expected";
/** What is expected where nothing is. */
const LEFT_OPEN = "anything: the specification leaves it open";

/** What may be behind a back-end that is gone. */
const HINT = "; one that leaves with its front-end has to be started anew for each case: see --spawn";

/** Asks what the back-end offers. */
async function discover(target: Target, settings: TrialSettings): Promise<Offer> {
  const nothing = { features: 0n, protocol: 0n, queues: undefined };
  const trial = new Trial(target, nothing, settings);
  try {
    const peer = await trial.peer();
    const features = await peer.number("GET_FEATURES");
    if (!has(features, ringFeatures.PROTOCOL_FEATURES)) return { ...nothing, features };
    const protocol = await peer.number("GET_PROTOCOL_FEATURES");
    if (!has(protocol, protocolFeatures.MQ)) return { ...nothing, features, protocol };
    await peer.tell("SET_PROTOCOL_FEATURES", 1n << BigInt(protocolFeatures.MQ));
    try {
      return { features, protocol, queues: Number(await peer.number("GET_QUEUE_NUM")) };
    } catch (error) {
      // It speaks; what is wrong with this is for the cases to tell.
      if (error instanceof CaseEnd) return { ...nothing, features, protocol };
      throw error;
    }
  } catch (error) {
    if (!(error instanceof CaseEnd)) throw error;
    const { expected, got } = error.finding;
    throw new TargetError(`this is no vhost-user back-end: expected ${expected}, got ${got}`);
  } finally {
    trial.close();
  }
}

/** Tries a case; whatever happens is a finding. */
async function tryCase(each: Case, trial: Trial, timeout: number): Promise<Finding> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<Finding>((resolve) => {
    const finding: Finding = { verdict: "fail", expected: `an end within ${timeout} ms`, got: "none" };
    timer = setTimeout(() => resolve(finding), timeout);
  });
  const tried = (async (): Promise<Finding> => {
    try {
      return await each.run(trial) ?? { verdict: "pass" };
    } catch (error) {
      if (error instanceof CaseEnd) return error.finding;
      if (error instanceof TargetError) {
        return { verdict: "fail", expected: "a connection", got: error.message };
      }
      // The tool's own fault; the other cases may still say something.
      return { verdict: "fail", expected: "no error in the case itself", got: String(error) };
    }
  })();
  try {
    // A case that is late goes on in the background and finds its connections closed.
    tried.catch(() => {});
    return await Promise.race([tried, late]);
  } finally {
    clearTimeout(timer);
    trial.close();
  }
}

/**
 * What a case found whose back-end has died. To end in good order rather than to close one connection is open to a
 * program that serves but one; what the case has failed by stays what it has failed by.
 */
function afterDeath(finding: Finding, { how, orderly }: Death, turnedAway: boolean): Finding {
  const { verdict, expected = "the back-end to live on", got } = finding;
  const both = got === undefined ? how : `${got}; ${how}`;
  if (verdict !== "fail" && orderly && turnedAway) {
    return { verdict: "undefined by the specification", got: both };
  }
  return { verdict: "fail", expected: verdict === "fail" ? expected : "the back-end to live on", got: both };
}

/**
 * Checks a back-end.
 *
 * @throws {TargetError} when it cannot be reached or is no vhost-user back-end
 */
export async function check(target: Target, options: CheckOptions = {}): Promise<Report> {
  const { device = "any", timeout = 20_000, patience = 2000, quiet = 100, writeAt = 0, tap } = options;
  const settings: TrialSettings = { device, patience, quiet, writeAt, tap };
  const selected = selectCases(options);
  const total = selected.reduce((sum, { cases }) => sum + cases.length, 0);
  const offer = await discover(target, settings);
  options.onOffer?.({ socket: target.socketPath, device, offer });
  if (target instanceof SpawnedTarget) await target.probe();
  let died: string | undefined;
  let number = 0;
  const done: { title: string; results: CaseResult[] }[] = [];
  for (const { title: group, cases } of selected) {
    const results: CaseResult[] = [];
    done.push({ title: group, results });
    for (const each of cases) {
      options.onCase?.(group, each, ++number, total);
      const { id, title, section, needs = {} } = each;
      const start = performance.now();
      let finding: Finding;
      let output: string | undefined;
      const missing = lacks(offer, needs, device);
      if (died !== undefined) {
        finding = { verdict: "fail", expected: "a back-end that lives", got: `not run: ${died}` };
      } else if (missing !== undefined) {
        finding = { verdict: "not offered", got: missing };
      } else {
        const trial = new Trial(target, offer, settings, needs);
        finding = await tryCase(each, trial, timeout);
        const death = await target.settle();
        if (death !== undefined) finding = afterDeath(finding, death, trial.turnedAway);
        if (death !== undefined && !target.restarts) died = `the back-end died in ${id}${HINT}`;
        if (finding.verdict === "fail") output = target.output || undefined;
      }
      const { verdict, got = AS_EXPECTED } = finding;
      const { expected = verdict === "undefined by the specification" ? LEFT_OPEN : title } = finding;
      const duration = performance.now() - start;
      const result = { id, title, section, verdict, expected, got, duration, output };
      results.push(result);
      options.onResult?.(group, result);
    }
  }
  return { socket: target.socketPath, device, offer, groups: done };
}
