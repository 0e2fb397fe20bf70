/**
 * How requests are written: most of them nearly right.
 *
 * @module
 */

import type { Random } from "../../support/random.ts";

/** A number in a request: its bytes, little-endian, and values that mean something there. */
export type Field = readonly [size: 1 | 2 | 4 | 8, ...values: (number | bigint)[]];

/** A kind of request that a device knows. */
export interface Form {
  /** Its name, for people. */
  readonly name: string;
  /** The ring that it goes to. */
  readonly queue: number;
  /** What the driver writes first. */
  readonly fields?: readonly Field[];
  /** In place of fields: what the driver writes first, of a form that fields cannot say. */
  readonly build?: (random: Random) => Uint8Array;
  /** Bytes behind that; one of these lengths. */
  readonly data?: readonly number[];
  /** Bytes that the device may write; one of these lengths. */
  readonly room?: readonly number[];
}

/** Lengths at which something may turn over. */
const ODD_LENGTHS = [
  0,
  1,
  2,
  3,
  4,
  7,
  8,
  9,
  15,
  16,
  17,
  31,
  63,
  511,
  513,
  1500,
  4095,
  4096,
  4097,
  20000,
  66000,
];

/** Ways in which the descriptors of a request are wrong; `right` and `indirect` are not. */
export const LAYOUTS = [
  "right",
  "indirect",
  "readable after writable",
  "loop",
  "next outside",
  "head outside",
  "address outside",
  "address at the end",
  "length absurd",
  "nested table",
  "table cut off",
  "table with next",
  "index too far",
] as const;
/** One of {@link LAYOUTS}. */
export type Layout = typeof LAYOUTS[number];

/** A request as it is sent. Bytes as hexadecimal digits: a step is shown and repeated as JSON. */
export interface Request {
  readonly kind: "request";
  readonly form: string;
  readonly queue: number;
  readonly bytes: string;
  readonly room: number;
  /** Where what is read and what is written is cut into descriptors. Two cuts in the same place make an empty one. */
  readonly cuts: readonly number[];
  readonly layout: Layout;
  /** Whether to wait for the answer before going on. */
  readonly waits: boolean;
}

/** Numbers of so many bytes at which something may turn over. */
function boundary(random: Random, size: number): bigint {
  const top = 1n << BigInt(8 * size);
  return random.pick([
    0n,
    1n,
    2n,
    top - 1n,
    top - 2n,
    top / 2n,
    top / 2n - 1n,
    BigInt(random.int(0, 0xffff_ffff)) % top,
    BigInt(random.int(0, 300)) % top,
  ]);
}

function put(target: Uint8Array, at: number, size: number, value: bigint): void {
  for (let i = 0; i < size; i++) target[at + i] = Number(value >> BigInt(8 * i) & 0xffn);
}

/** The bytes of a form, right or with one field that is not. */
function written(random: Random, { fields = [], build, data = [0] }: Form): Uint8Array {
  const head = build?.(random) ?? new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const odd = random.int(0, 3) === 0 ? random.int(0, fields.length - 1) : -1;
  let at = 0;
  for (const [i, [size, ...values]] of fields.entries()) {
    put(head, at, size, i === odd ? boundary(random, size) : BigInt(random.pick(values)));
    at += size;
  }
  if (build !== undefined && random.int(0, 3) === 0) {
    head[random.int(0, head.length - 1)] = random.int(0, 255);
  }
  const body = random.bytes(random.pick(data));
  return Uint8Array.from([...head, ...body]);
}

/** Makes a request of a form. */
export function request(random: Random, form: Form): Request {
  let bytes = written(random, form);
  let room = random.pick(form.room ?? [0]);
  switch (random.int(0, 15)) {
    case 0:
      bytes = bytes.slice(0, random.int(0, bytes.length));
      break;
    case 1:
      bytes = Uint8Array.from([...bytes, ...random.bytes(random.pick(ODD_LENGTHS))]);
      break;
    case 2:
    case 3:
      room = random.pick(ODD_LENGTHS);
      break;
    case 4:
      bytes = new Uint8Array(random.bytes(random.int(0, 80)));
  }
  const all = bytes.length + room;
  return {
    kind: "request",
    form: form.name,
    queue: form.queue,
    bytes: bytes.toHex(),
    room,
    cuts: Array.from({ length: random.pick([0, 0, 1, 2, 3, 9]) }, () => random.int(0, all)).sort((a, b) =>
      a - b
    ),
    layout: random.int(0, 11) === 0 ? random.pick(LAYOUTS) : random.pick(["right", "right", "indirect"]),
    waits: random.int(0, 2) > 0,
  };
}

/** A request of a form as it should be, with the given bytes behind its fields. */
export function correct(random: Random, form: Form, body?: Uint8Array): Request {
  const { fields = [], build, data = [0], room = [0] } = form;
  const head = build?.(random) ?? new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  let at = 0;
  for (const [size, ...values] of fields) {
    put(head, at, size, BigInt(values[0]));
    at += size;
  }
  const bytes = Uint8Array.from([...head, ...(body ?? random.bytes(data[0])).subarray(0, data[0])]);
  return {
    kind: "request",
    form: form.name,
    queue: form.queue,
    bytes: bytes.toHex(),
    room: room[0],
    cuts: [],
    layout: "right",
    waits: true,
  };
}
