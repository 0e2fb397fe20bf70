/**
 * Makes cases of hostile front-ends.
 *
 * @module
 */

import { frontendMessages, protocolFeatures } from "../../../src/protocol/mod.ts";
import type { Random } from "../../support/random.ts";
import { anything, arrival, asking, type Manner, mutated, type Said, setUp } from "./messages.ts";
import type { DescriptorName } from "./props.ts";
import { recordings } from "./recordings.ts";
import { answers, type Step } from "./steps.ts";

/** How front-ends are: from those that only now and then are wrong, and so get far, to those that hardly ever are right. */
const manners: readonly (Manner & { readonly messages: readonly [number, number] })[] = [
  { fatal: 0, noise: 2, strange: 5, messages: [300, 900] },
  { fatal: 1, noise: 5, strange: 10, messages: [200, 600] },
  { fatal: 3, noise: 10, strange: 30, messages: [100, 300] },
  { fatal: 20, noise: 50, strange: 100, messages: [20, 80] },
  { fatal: 200, noise: 200, strange: 300, messages: [2, 20] },
];

/** After so many messages at the most the answers are read: more than these do not fit into the socket. */
const READ_AFTER = 100;
const ALL = 0xffff_ffff_ffff_ffffn;
const PAGEFAULT = 1n << BigInt(protocolFeatures.PAGEFAULT);
/** What makes a ring run. */
const RUNS: readonly number[] = [
  frontendMessages.SET_VRING_KICK.id,
  frontendMessages.VRING_KICK.id,
  frontendMessages.SET_VRING_ENABLE.id,
];

/** What takes features. */
const FEATURES: readonly number[] = [
  frontendMessages.SET_FEATURES.id,
  frontendMessages.SET_PROTOCOL_FEATURES.id,
];

/** Makes a case for one of the devices, with descriptors of these names. */
export function makeCase(
  random: Random,
  devices: readonly string[],
  names: readonly DescriptorName[],
): Step[] {
  const manner = random.pick(manners);
  // A page that has not come stops the thread that touches it, which here is the one of the front-end, too.
  const postcopy = random.int(0, 24) === 0;
  const device = random.pick(devices);
  const steps: Step[] = [{ do: "device", name: device }];
  const many = random.pick([1, 1, 2, 3]);
  for (let who = 0; who < many; who++) {
    if (random.int(0, 9) > 0) steps.push(negotiate(random, who, postcopy));
  }
  const scripts = Array.from({ length: many }, () => [
    ...postcopy && random.int(0, 3) > 0 ? arrival(random) : [],
    ...script(random, manner, names, device === "custom"),
  ]);
  const unread = scripts.map(() => 0);
  for (let left = scripts.map((_, who) => who); left.length > 0;) {
    const who = random.pick(left);
    const said = scripts[who].shift();
    if (said === undefined) {
      left = left.filter((each) => each !== who);
      continue;
    }
    steps.push(sending(random, who, said, manner));
    if (++unread[who] >= READ_AFTER || random.int(0, 49) === 0) {
      unread[who] = 0;
      steps.push({ do: "turn", turns: 1 }, { do: "read", who });
    }
    if (random.int(0, 59) === 0) steps.push(interlude(random, who, postcopy));
  }
  if (random.int(0, 1) === 0) steps.push({ do: "turn", turns: random.int(1, 4) });
  return steps.filter((step) => !("bytes" in step) || harmless(step.bytes, postcopy));
}

/** Keeps rings from running where pages may be missing, and pages from missing where rings may run. */
function harmless(bytes: Uint8Array, postcopy: boolean): boolean {
  if (postcopy) return !RUNS.includes(bytes[0]);
  if (bytes[0] === frontendMessages.SET_PROTOCOL_FEATURES.id && bytes.length > 13) {
    bytes[12 + protocolFeatures.PAGEFAULT / 8] &= ~(1 << protocolFeatures.PAGEFAULT % 8);
  }
  return true;
}

function negotiate(random: Random, who: number, postcopy: boolean): Step {
  const any = (): bigint => BigInt(random.int(0, 2 ** 32 - 1)) << 32n | BigInt(random.int(0, 2 ** 32 - 1));
  // Acknowledgements let a session outlive what is wrong.
  const acks = 1n << BigInt(protocolFeatures.REPLY_ACK);
  const protocol = random.int(0, 9) > 0 ? ALL : random.int(0, 1) === 0 ? any() : any() | acks;
  const features = random.int(0, 2) > 0 ? ALL : any();
  return { do: "negotiate", who, features, protocol: postcopy ? protocol : protocol & ~PAGEFAULT };
}

/** What one front-end says. */
function script(
  random: Random,
  manner: (typeof manners)[number],
  names: readonly DescriptorName[],
  gifted: boolean,
): Said[] {
  const [least, most] = manner.messages;
  const said = Array.from({ length: random.int(least, most) }, () => anything(random, manner, names, gifted));
  switch (random.int(0, 2)) {
    case 0:
      return [...setUp(random), ...said];
    case 1:
      return distorted(random, random.pick(recordings), said, manner, names).map((each) =>
        random.int(0, 999) < manner.fatal ? each : asking(each)
      );
    default:
      return said;
  }
}

/** A recording with things left out, doubled, put elsewhere, changed, and others in between. */
function distorted(
  random: Random,
  recording: readonly Said[],
  others: readonly Said[],
  manner: Manner,
  names: readonly DescriptorName[],
): Said[] {
  const said: Said[] = [];
  for (const each of recording) {
    const change = random.int(0, 999) < manner.noise * 4 ? random.int(0, 3) : -1;
    if (change === 0) continue;
    if (change === 1) said.push(each);
    if (change === 2) said.splice(random.int(0, said.length), 0, each);
    else said.push(change === 3 ? mutated(random, each, names) : each);
    if (random.int(0, 9) === 0 && others.length > 0) said.push(random.pick(others));
  }
  return [...said, ...others];
}

function sending(random: Random, who: number, { bytes, fds }: Said, manner: Manner): Step {
  if (random.int(0, 999) >= manner.strange / 3) {
    const modest = random.int(0, 999) >= manner.fatal && FEATURES.includes(bytes[0]) && bytes.length === 20;
    return { do: modest ? "accept" : "say", who, bytes, fds };
  }
  if (random.int(0, 2) === 0) {
    // The rest never comes, or what comes next is taken for it.
    return { do: "say", who, bytes: bytes.slice(0, random.int(1, Math.max(1, bytes.length - 1))), fds };
  }
  return {
    do: "dribble",
    who,
    bytes,
    fds: random.int(0, 9) === 0 ? fds : fds.slice(0, 1),
    piece: random.int(1, 16),
  };
}

function interlude(random: Random, who: number, postcopy: boolean): Step {
  switch (random.int(0, 11)) {
    case 0:
      return { do: "leave", who, unread: random.int(0, 1) === 0 };
    case 1:
      return { do: "hush", who };
    case 2:
      return { do: "deafen", who };
    case 3:
      return { do: "change" };
    case 4:
      return negotiate(random, who, postcopy);
    case 5:
    case 6:
    case 7:
      return { do: "answer", who, how: random.pick(answers) };
    case 8:
    case 9:
      return { do: "ring" };
    default:
      return { do: "turn", turns: random.int(1, 3) };
  }
}
