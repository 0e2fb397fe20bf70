/**
 * Rules that say which requests go wrong, and how.
 *
 * @module
 */

import type { RequestFormat, RequestKind } from "../backend/device.ts";

/** A rule that cannot be understood, or that the device cannot follow. Names the rule and the part. */
export class FaultRuleError extends Error {
  /** The error's class name. */
  override readonly name = "FaultRuleError";
}

/** Whom rules are about. */
export interface FaultSubject {
  /** The device's name. */
  readonly name: string;
  /** What the device says of its requests. */
  readonly requests?: RequestFormat;
}

/** A rule that was understood. */
export interface FaultRule {
  /** As it was given. */
  readonly text: string;
  /** Kind of request that it is about; all when it is absent. */
  readonly kind?: string;
  /** Number of the ring that it is about; all when it is absent. */
  readonly ring?: number;
  /** First and last place (sector, …) that it is about; all when it is absent. */
  readonly places?: readonly [first: number, last: number];
  /** Requests to pass over before it begins. */
  readonly after: number;
  /** It is about each so many-th request from then on. */
  readonly every: number;
  /** How likely it is that one of these goes wrong, 0 to 1. */
  readonly probability: number;
  /** Which requests that are, and which bits are changed. */
  readonly seed: number;
  /** Most requests that go wrong; Infinity for all. */
  readonly times: number;
  /** Fails the request with this status of the device, without carrying it out. */
  readonly error?: number;
  /** Answers as if the request had been carried out, which it is not. */
  readonly lose?: boolean;
  /** Never completes the request, and does not carry it out. */
  readonly drop?: boolean;
  /** The ring stands still for so long, ms; Infinity for ever. */
  readonly stall?: number;
  /** The answer comes later, ms. */
  readonly delay?: number;
  /** Answers are held until there are so many, and given in the opposite order. */
  readonly reorder?: number;
  /** Bits to change in what is written for the driver. */
  readonly corrupt?: number;
  /** Bytes that the driver is told of at the most. */
  readonly short?: number;
}

type Written = { -readonly [K in keyof FaultRule]: FaultRule[K] };

/** Longest time in a rule, ms: a day. */
const LONGEST = 86_400_000;

/** How a part reads its value, and what the value is, in words. Without a value: what it stands for then. */
interface Part {
  readonly value: string;
  readonly least: number;
  readonly most: number;
  readonly whole?: boolean;
  readonly absent?: number;
}

const COUNT = { value: "a number of requests", least: 1, most: 0x7fff_ffff, whole: true };
const TIME = { value: "a time in ms", least: 0, most: LONGEST };

const NUMBERS: Readonly<Record<string, Part>> = {
  ring: { value: "a ring's number", least: 0, most: 255, whole: true },
  after: { ...COUNT, least: 0 },
  every: COUNT,
  times: COUNT,
  probability: { value: "a probability", least: 0, most: 1 },
  seed: { value: "a number", least: 0, most: 0xffff_ffff, whole: true },
  delay: TIME,
  stall: { ...TIME, absent: Infinity },
  reorder: { value: "a number of requests", least: 2, most: 32768, whole: true, absent: 2 },
  corrupt: { value: "a number of bits", least: 1, most: 1 << 20, whole: true, absent: 1 },
  short: { value: "a number of bytes", least: 0, most: 0xffff_ffff, whole: true },
};

/** What can happen to a request. */
const ACTIONS = ["error", "lose", "drop", "stall", "delay", "reorder", "corrupt", "short"] as const;
/** What leaves nothing for others to do. */
const ALONE = ["drop", "stall"] as const;
/** What a request that is not carried out cannot have as well. */
const NOT_CARRIED_OUT = ["lose", "error"] as const;

/**
 * Reads a rule: `WHAT[:PART]…`.
 *
 * @throws {FaultRuleError}
 */
export function parseFault(text: string, subject: FaultSubject): FaultRule {
  const fail = (why: string): never => {
    throw new FaultRuleError(`fault '${text}': ${why}`);
  };
  const [what, ...parts] = text.split(":");
  const rule: Written = { text, after: 0, every: 1, probability: 1, seed: 1, times: Infinity };
  rule.kind = kindOf(what, subject, fail);
  const seen = new Set<string>();
  for (const part of parts) {
    const at = part.indexOf("=");
    const name = at < 0 ? part : part.slice(0, at);
    const value = at < 0 ? undefined : part.slice(at + 1);
    if (seen.has(name)) fail(`'${name}' is given twice`);
    seen.add(name);
    setPart(rule, part, name, value, subject, fail);
  }
  if (seen.has("once") && seen.has("times")) fail("'once' and 'times' exclude each other");
  check(rule, subject, fail);
  return rule;
}

type Fail = (why: string) => never;

function listOf(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

function kindOf(what: string, { name, requests }: FaultSubject, fail: Fail): string | undefined {
  const prefix = [name, "device"].find((each) => what === each || what.startsWith(`${each}.`));
  if (prefix === undefined) {
    return fail(`'${what}' is not this device, which is '${name}' (or just 'device')`);
  }
  if (what === prefix) return undefined;
  const kind = what.slice(prefix.length + 1);
  const kinds = Object.keys(requests?.kinds ?? {});
  if (kinds.includes(kind)) return kind;
  return fail(
    kinds.length === 0
      ? `'${what}': ${name} does not tell kinds of request apart; 'ring=N' chooses a ring`
      : `'${what}': ${name} has no requests '${kind}'; there are ${listOf(kinds)}`,
  );
}

function setPart(
  rule: Written,
  part: string,
  name: string,
  value: string | undefined,
  subject: FaultSubject,
  fail: Fail,
): void {
  const places = subject.requests?.places?.name;
  if (Object.hasOwn(NUMBERS, name)) {
    rule[name as "delay"] = numberOf(part, value, NUMBERS[name], fail);
  } else if (name === "once" || name === "drop" || name === "lose") {
    if (value !== undefined) fail(`'${part}': '${name}' has no value`);
    if (name === "once") rule.times = 1;
    else rule[name] = true;
  } else if (name === "error") {
    rule.error = errorOf(part, value, subject, fail);
  } else if (places !== undefined && name === places) {
    rule.places = rangeOf(part, value, fail);
  } else {
    const known = [
      ...Object.keys(NUMBERS),
      "once",
      "drop",
      "lose",
      "error",
      ...places === undefined ? [] : [places],
    ];
    fail(`'${part}' is neither a selector nor an action; there are ${listOf(known.sort())}`);
  }
}

function numberOf(part: string, value: string | undefined, kind: Part, fail: Fail): number {
  if (value === undefined && kind.absent !== undefined) return kind.absent;
  const number = /^\d+(\.\d+)?$/.test(value ?? "") ? Number(value) : NaN;
  const fits = number >= kind.least && number <= kind.most &&
    (kind.whole !== true || Number.isInteger(number));
  return fits ? number : fail(`'${part}': expected ${kind.value} from ${kind.least} to ${kind.most}`);
}

function errorOf(
  part: string,
  value: string | undefined,
  { name, requests }: FaultSubject,
  fail: Fail,
): number {
  const errors = requests?.errors ?? {};
  const names = Object.keys(errors);
  if (names.length === 0 || requests?.fail === undefined) {
    return fail(
      `'${part}': answers of ${name} have no status for errors; its requests can be dropped or delayed`,
    );
  }
  if (value !== undefined && Object.hasOwn(errors, value)) return errors[value];
  return fail(`'${part}': ${name} can fail a request with ${listOf(names)}`);
}

function rangeOf(part: string, value: string | undefined, fail: Fail): [number, number] {
  const match = /^(\d+)(?:(-)(\d*))?$/.exec(value ?? "");
  if (match === null) return fail(`'${part}': expected N, FIRST-LAST or FIRST-`);
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : match[3] === "" ? Infinity : Number(match[3]);
  return last >= first ? [first, last] : fail(`'${part}': the last is before the first`);
}

/** What fits none of the requests that a rule is about would never happen. */
function check(rule: FaultRule, { name, requests }: FaultSubject, fail: Fail): void {
  const actions = ACTIONS.filter((action) => rule[action] !== undefined);
  if (actions.length === 0) fail(`it does not say what is to happen: ${listOf(ACTIONS)}`);
  for (const action of ALONE) {
    if (rule[action] !== undefined && actions.length > 1) {
      fail(`'${action}' leaves no answer for '${actions.find((other) => other !== action)}'`);
    }
  }
  for (const action of NOT_CARRIED_OUT) {
    if (rule[action] !== undefined && rule.corrupt !== undefined) {
      fail(`'${action}' leaves nothing to 'corrupt'`);
    }
  }
  if (rule.error !== undefined && rule.lose !== undefined) fail("'error' and 'lose' exclude each other");
  if (requests === undefined) return;
  const kinds: RequestKind[] = rule.kind === undefined
    ? Object.values(requests.kinds)
    : [requests.kinds[rule.kind]];
  const what = rule.kind === undefined ? name : `${name}.${rule.kind}`;
  if (rule.error !== undefined && !kinds.some(({ fails }) => fails)) {
    fail(`'error': an answer to ${what} has no status for errors`);
  }
  if (rule.corrupt !== undefined && !kinds.some(({ data }) => data)) {
    fail(`'corrupt' changes what the device writes for the driver, and for ${what} that is no data`);
  }
}
