/**
 * Messages that hostile front-ends say: made from the message table, nearly right or not at all.
 *
 * @module
 */

import {
  type FrontendMessage,
  frontendMessages,
  HeaderFlag,
  MAX_PAYLOAD,
  type MessageRow,
  type PayloadTypes,
  VERSION,
} from "../../../src/protocol/mod.ts";
import { concat, u32, u64 } from "../../session/wire.ts";
import type { Random } from "../../support/random.ts";
import { CHANNEL, type DescriptorName, EVENTS, GONE, MEMORIES, SHARED } from "./props.ts";

/** A message with its descriptors. */
export interface Said {
  readonly bytes: Uint8Array;
  readonly fds: readonly DescriptorName[];
}

const table: Readonly<Record<FrontendMessage, MessageRow>> = frontendMessages;
const NAMES = Object.keys(frontendMessages) as FrontendMessage[];
/** What sets rings and memory up, so that there is something to go wrong later. */
const LIKELY = NAMES.filter((name) => /MEM|VRING|FEATURES|STATUS|CONFIG|REQ_FD/.test(name));
/** What every device has. */
const COMMON: readonly string[] = ["MQ", "CONFIGURE_MEM_SLOTS", "STATUS"];
/** Those whose failure cannot be told, so that it ends the session; and which of them every device takes. */
const UNFORGIVING = NAMES.filter((name) => !["ack", "always ack"].includes(table[name].reply));
const TAKEN = UNFORGIVING.filter((name) => {
  const { requires } = table[name];
  return requires === undefined || COMMON.includes(requires);
});

/** Where memory is, for front-end and guest alike: the same place twice is as likely as one beside it. */
const BASE = 0x1000;

/** Flags of a request, and of one that asks for an acknowledgement. */
export const PLAIN: number = VERSION;
export const NEED_REPLY: number = VERSION | HeaderFlag.NEED_REPLY;

/** How far from right. */
export interface Manner {
  /** Of 1000 messages, how many are such that no session outlives them. */
  readonly fatal: number;
  /** Of 1000 payloads, how many are noise. */
  readonly noise: number;
  /** Of 1000 messages, how many come with any descriptors at all. */
  readonly strange: number;
}

const NOTHING = new Uint8Array(0);
const CAREFUL: Manner = { fatal: 0, noise: 0, strange: 0 };

/** A message as bytes. `size` is what the header says. */
export function message(
  id: number,
  payload: Uint8Array,
  flags = NEED_REPLY,
  size = payload.length,
): Uint8Array {
  const bytes = new Uint8Array(12 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, size, true);
  bytes.set(payload, 12);
  return bytes;
}

function chance(random: Random, of1000: number): boolean {
  return random.int(0, 999) < of1000;
}

/** 64 bits at which something may turn over, or any. */
function odd64(random: Random): bigint {
  switch (random.int(0, 3)) {
    case 0:
      return BigInt(random.int(0, 2 ** 32 - 1)) << 32n | BigInt(random.int(0, 2 ** 32 - 1));
    case 1:
      return (1n << BigInt(random.int(0, 63))) - BigInt(random.int(0, 1));
    case 2:
      return BigInt.asUintN(64, -BigInt(random.pick([1, 2, 4096, 4097, 65536])));
    default:
      return BigInt(random.pick([0, 1, 7, 4095, 4096, 4097, 0xffff, 0x1_0000]));
  }
}

function odd32(random: Random): number {
  return random.pick([0, 1, 0xff, 0x100, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, random.int(0, 2 ** 32 - 1)]);
}

const small = (random: Random): number => random.int(0, 5);
const page = (random: Random): number => 0x1000 * random.int(0, 16);

/** An address of something that is shared, mostly. */
function address(random: Random): bigint {
  return random.int(0, 39) === 0 ? odd64(random) : BigInt(BASE + 16 * random.int(0, SHARED / 16 - 1));
}

function region(random: Random): Uint8Array {
  if (random.int(0, 2) === 0) return u64(BASE, SHARED, BASE, 0);
  if (random.int(0, 14) === 0) return u64(odd64(random), odd64(random), odd64(random), odd64(random));
  const at = page(random);
  return u64(
    at,
    random.pick([4096, 4096, 8192, 0, SHARED, 1, 2 ** 32, 2 ** 33, 2 ** 40, 2 ** 43]),
    random.pick([at, at, page(random)]),
    random.pick([0, 0, 0, 4096, 1, SHARED]),
  );
}

/** Something of a form, with numbers that are likely to go through. */
const plausible: Readonly<Record<keyof PayloadTypes, (random: Random) => Uint8Array>> = {
  none: () => NOTHING,
  u64: (random) => u64(random.pick([0, 1, small(random), 0xff, 0x1_7000_0000n, 1500, odd64(random)])),
  vringState: (random) =>
    u32(small(random), random.pick([0, 1, 1, 1, 8, 64, 256, 65535, small(random), odd32(random)])),
  vringDescriptor: (random) => u64(small(random) | random.pick([0, 0, 0, 0x100])),
  vringAddress: (random) => {
    const ring = u32(small(random), random.pick([0, 0, 0, 1, 2]));
    if (random.int(0, 1) === 0) {
      const at = BASE + 0x1000 * random.int(0, 14);
      return concat(ring, u64(at, at + 0x800, at + 0x400, at));
    }
    return concat(
      ring,
      u64(address(random) & ~15n, address(random) & ~3n, address(random) & ~1n, address(random)),
    );
  },
  memoryRegions: (random) => {
    const count = random.pick([0, 1, 1, 1, 2, 3, 8, 32]);
    const regions = count === 1
      ? [region(random)]
      // Beside each other: nearly all of those made at random would overlap.
      : Array.from(
        { length: count },
        (_, i) => random.int(0, 19) === 0 ? region(random) : u64(BASE * (i + 1), 4096, BASE * (i + 1), 0),
      );
    return concat(u32(count, random.pick([0, 0, 0, 1])), ...regions);
  },
  addedRegion: (random) => random.int(0, 29) === 0 ? new Uint8Array(8) : concat(u64(0), region(random)),
  memoryRegion: (random) => concat(u64(0), region(random)),
  log: (random) =>
    u64(random.pick([0, 1, 8, 4096, SHARED, odd64(random)]), random.pick([0, 0, 8, 4096, odd64(random)])),
  iotlb: (random) =>
    concat(
      u64(
        address(random),
        random.pick([0, 4096, SHARED, odd64(random)]),
        random.pick([BASE, address(random)]),
      ),
      new Uint8Array([random.pick([0, 1, 2, 3, 3, 3, 4, 255]), random.pick([1, 2, 2, 2, 3, 3, 4, 0, 9])]),
      new Uint8Array(random.pick([6, 6, 6, 0])),
    ),
  inflight: (random) =>
    concat(
      u64(random.pick([0, 4096, 8192, SHARED, odd64(random)]), random.pick([0, 0, 8, 4096])),
      new Uint8Array(
        new Uint16Array([random.pick([1, 2, 4, small(random), 0xffff]), random.pick([8, 64, 128, 0, 0xffff])])
          .buffer,
      ),
      new Uint8Array(random.pick([4, 4, 4, 0])),
    ),
  config: (random) => {
    const length = random.pick([0, 1, 4, 8, random.int(0, 60), 256]);
    return concat(
      u32(
        random.pick([0, 0, random.int(0, 60), odd32(random)]),
        random.pick([length, length, length, 300]),
        random.pick([0, 0, 1, 2]),
      ),
      random.bytes(length),
    );
  },
  deviceState: (random) => u32(random.pick([0, 1, 2]), random.pick([0, 0, 0, 1])),
  cryptoSession: (random) => concat(u64(small(random)), random.bytes(1056), u64(odd64(random))),
  requestedUuid: (random) => random.bytes(random.pick([16, 16, 16, 0])),
  // Only in answers and on the back-end channel; here because the list is one of all payloads.
  uuid: (random) => random.bytes(16),
  deviceStateReply: (random) => u64(odd64(random)),
  vringArea: (random) => u64(odd64(random), odd64(random), odd64(random)),
  shmemMapping: (random) => u64(0, odd64(random), odd64(random), odd64(random), 0),
  shmemConfig: (random) => random.bytes(2056),
} as Readonly<Record<keyof PayloadTypes, (random: Random) => Uint8Array>>;

const SIZES = [0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 72, 269, 1032, 1072, MAX_PAYLOAD];

/** As many descriptors as belong to it and of the right kind; or any. */
function descriptors(
  random: Random,
  name: FrontendMessage,
  payload: Uint8Array,
  manner: Manner,
  all: readonly DescriptorName[],
): DescriptorName[] {
  if (chance(random, manner.strange)) {
    const count = random.pick([1, 1, 2, 3, 8, 32]);
    return Array.from({ length: count }, () => random.pick(all));
  }
  const { fds } = table[name];
  if (fds === undefined) return [];
  let count = fds[1];
  if (name === "SET_MEM_TABLE") count = payload.length < 8 ? 0 : Math.min(32, payload[0]);
  if (name.startsWith("SET_VRING_")) count = payload.length === 8 && payload[1] === 1 ? 0 : 1;
  const usual = /MEM|LOG_BASE|INFLIGHT/.test(name)
    ? MEMORIES
    : name === "SET_BACKEND_REQ_FD"
    ? [CHANNEL, CHANNEL, CHANNEL, GONE]
    : /STATE|SOCKET/.test(name)
    ? [CHANNEL, "a pipe", GONE]
    : EVENTS;
  return Array.from({ length: count }, () => random.pick(random.int(0, 9) === 0 ? all : usual));
}

/** A message; `gifted` for a device that takes them all. */
export function anything(
  random: Random,
  manner: Manner,
  all: readonly DescriptorName[],
  gifted: boolean,
): Said {
  let name = random.pick(random.int(0, 2) === 0 ? NAMES : LIKELY);
  const fatal = chance(random, manner.fatal);
  const careful = !fatal && UNFORGIVING.includes(name);
  if (careful) name = random.pick(gifted ? UNFORGIVING : TAKEN);
  const row = table[name];
  const payload = !careful && chance(random, manner.noise)
    ? random.bytes(random.int(0, 1) === 0 ? random.int(0, 64) : random.pick(SIZES))
    : plausible[row.payload](random);
  const fds = descriptors(random, name, payload, careful ? CAREFUL : manner, all);
  if (careful) return { bytes: message(row.id, payload), fds };
  if (!fatal) return { bytes: message(row.id, payload), fds };
  switch (random.int(0, 5)) {
    case 0:
      return { bytes: message(row.id, payload, random.int(0, 63)), fds };
    case 1:
      return { bytes: message(odd32(random), payload), fds };
    case 2: {
      const size = random.pick([0, payload.length + 1, 4096, 4097, 0xffff_ffff]);
      return { bytes: message(row.id, payload, NEED_REPLY, size), fds };
    }
    case 3:
      return { bytes: message(row.id, payload, odd32(random)), fds };
    default:
      return { bytes: message(row.id, payload, PLAIN), fds };
  }
}

/** The same, asking for an acknowledgement: that lets a session outlive what is refused. */
export function asking({ bytes, fds }: Said): Said {
  const asked = bytes.slice();
  asked[4] |= HeaderFlag.NEED_REPLY;
  return { bytes: asked, fds };
}

/** What shares memory and starts rings there. */
export function setUp(random: Random): Said[] {
  const said = [shares(random.pick(MEMORIES))];
  for (let ring = 0; ring < random.pick([1, 2, 4]); ring++) {
    said.push(...starts(ring, {
      size: random.pick([1, 8, 64, 256]),
      base: random.pick([0, 0, random.int(0, 0xffff)]),
      at: BASE + 0x1000 * random.int(0, 14),
      call: random.pick(EVENTS),
      kick: random.int(0, 3) === 0 ? undefined : random.pick(EVENTS),
    }));
  }
  return said;
}

/** What a postcopy migration begins with: memory of which no page is there. */
export function arrival(random: Random): Said[] {
  const said = [say("POSTCOPY_ADVISE", NOTHING), say("POSTCOPY_LISTEN", NOTHING)];
  if (random.int(0, 1) === 0) {
    said.push(shares(random.pick(MEMORIES)), say("SET_MEM_TABLE", new Uint8Array(8)));
  } else {
    said.push(
      say("ADD_MEM_REG", concat(u64(0), u64(BASE, SHARED, BASE, 0)), [random.pick(MEMORIES)]),
      say("ADD_MEM_REG", new Uint8Array(8)),
    );
  }
  if (random.int(0, 1) === 0) said.push(say("POSTCOPY_END", NOTHING));
  return said;
}

/** The first rings, empty and polled. */
export function polledRings(count: number): Said[] {
  const [, zeros] = MEMORIES;
  const rings = Array.from(
    { length: count },
    (_, ring) => starts(ring, { size: 8, base: 0, at: BASE, call: EVENTS[0], kick: undefined }),
  );
  return [shares(zeros), ...rings.flat()];
}

function say(name: FrontendMessage, payload: Uint8Array, fds: DescriptorName[] = []): Said {
  return { bytes: message(table[name].id, payload), fds };
}

function shares(memory: DescriptorName): Said {
  return say("SET_MEM_TABLE", concat(u32(1, 0), u64(BASE, SHARED, BASE, 0)), [memory]);
}

/** How a ring is started; without a kick it is polled. */
interface Start {
  readonly size: number;
  readonly base: number;
  readonly at: number;
  readonly call: DescriptorName;
  readonly kick: DescriptorName | undefined;
}

function starts(ring: number, { size, base, at, call, kick }: Start): Said[] {
  return [
    say("SET_VRING_NUM", u32(ring, size)),
    say("SET_VRING_BASE", u32(ring, base)),
    say("SET_VRING_ADDR", concat(u32(ring, 0), u64(at, at + 0x800, at + 0x400, 0))),
    say("SET_VRING_CALL", u64(ring), [call]),
    kick === undefined ? say("SET_VRING_KICK", u64(ring | 0x100)) : say("SET_VRING_KICK", u64(ring), [kick]),
    say("SET_VRING_ENABLE", u32(ring, 1)),
  ];
}

/** The same message with something about it changed. */
export function mutated(random: Random, said: Said, all: readonly DescriptorName[]): Said {
  const bytes = said.bytes.slice();
  switch (random.int(0, 6)) {
    case 0:
    case 1:
      if (bytes.length > 12) {
        bytes[random.int(12, bytes.length - 1)] = random.pick([0, 1, 0xff, random.int(0, 255)]);
      }
      return { ...said, bytes };
    case 2:
      if (bytes.length > 12) bytes[random.int(12, bytes.length - 1)] ^= 1 << random.int(0, 7);
      return { ...said, bytes };
    case 3: {
      const payload = bytes.subarray(12, random.int(12, bytes.length));
      return { ...said, bytes: message(bytes[0], payload) };
    }
    case 4:
      return {
        ...said,
        bytes: message(bytes[0], concat(bytes.subarray(12), random.bytes(random.pick([1, 4, 8, 32])))),
      };
    case 5:
      return { bytes, fds: said.fds.length === 0 ? [random.pick(all)] : [] };
    default:
      return {
        bytes,
        fds: [...said.fds.slice(1), ...Array.from({ length: random.int(1, 3) }, () => random.pick(all))],
      };
  }
}
