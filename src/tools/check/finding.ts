/**
 * What a conformance case can find, what it needs, and where that is written.
 *
 * @module
 */

import type { ProtocolFeature, RingFeature } from "../../protocol/features.ts";

/** Kinds of device that the cases know how to drive; `"any"` for all others. */
export const deviceKinds = ["any", "blk", "fs", "net", "rng", "vsock"] as const;

/** One of {@link deviceKinds}. */
export type DeviceKind = (typeof deviceKinds)[number];

/**
 * What came of a case:
 * - `pass`: the back-end does what the specification says
 * - `fail`: it does not, or it died or fell silent
 * - `not offered`: it does not offer what the case is about
 * - `undefined by the specification`: it leaves this open; what the back-end does is told
 */
export type Verdict = "pass" | "fail" | "not offered" | "undefined by the specification";

/** What came of a case, with what is to be said about it. */
export interface Finding {
  /** The outcome. */
  readonly verdict: Verdict;
  /** What the specification asks for, when the back-end does something else. */
  readonly expected?: string;
  /** What the back-end does, or lacks. */
  readonly got?: string;
}

/** Ends a case with a finding. */
export class CaseEnd extends Error {
  /** The error's class name. */
  override readonly name = "CaseEnd";
  /** What came of it. */
  readonly finding: Finding;

  /** An end. */
  constructor(finding: Finding) {
    super(`${finding.verdict}: ${finding.got ?? ""}`);
    this.finding = finding;
  }
}

/**
 * Ends a case: the back-end breaks the specification.
 *
 * @throws {CaseEnd} always
 */
export function fail(expected: string, got: string): never {
  throw new CaseEnd({ verdict: "fail", expected, got });
}

/**
 * Ends a case: the back-end does not offer what it takes.
 *
 * @throws {CaseEnd} always
 */
export function notOffered(got: string): never {
  throw new CaseEnd({ verdict: "not offered", got });
}

/** A finding where the specification leaves things open. */
export function open(got: string): Finding {
  return { verdict: "undefined by the specification", got };
}

/** A finding that all is well, with a remark. */
export function pass(got?: string): Finding {
  return { verdict: "pass", got };
}

/** What a back-end must offer for a case to make sense. All of it is negotiated by `Trial.open`. */
export interface Needs {
  /** Protocol features. */
  readonly protocol?: readonly ProtocolFeature[];
  /** Features of ring and transport. */
  readonly ring?: readonly RingFeature[];
  /** Features of the device type: name and bit. */
  readonly device?: Readonly<Record<string, number>>;
  /** Whether requests must be answered, which takes a device kind that the cases know how to drive. */
  readonly requests?: boolean;
}

/** Citation of the vhost-user document by its section heading. */
export function vhostUser(heading: string): string {
  return `vhost-user "${heading}"`;
}

/** Citation of the vhost-user document's description of a message. */
export function aboutMessage(name: string): string {
  return vhostUser(`Front-end message types: VHOST_USER_${name}`);
}

/** Citation of virtio 1.4 by the number of a section. */
export function virtio(number: string): string {
  return `virtio 1.4 §${number}`;
}
