/**
 * Input devices of this machine: `/dev/input/event*` (Linux `input.h`).
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { fileStatus, setNonblocking } from "./fd.ts";
import { close } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { littleEndian, Native } from "./native.ts";
import { check, Errno, OsError } from "./os_error.ts";

const READ = 0x8000_0000n;
/** The number of a request that reads `length` bytes. */
const reading = (number: number, length: number): bigint =>
  READ | BigInt(length) << 16n | 0x4500n | BigInt(number);

const GRAB = 0x4004_4590n;
const NUMBER = {
  ID: 0x02,
  NAME: 0x06,
  UNIQUE: 0x08,
  PROPERTIES: 0x09,
  KEYS: 0x18,
  SWITCHES: 0x1b,
  BITS: 0x20,
  AXIS: 0x40,
};

/** Bytes of `struct input_event` on 64-bit machines: a time of 16, u16 type, u16 code, i32 value. */
const EVENT = 24;
/** Events that are read at once. */
const BATCH = 64;
/** Bytes of bits for any codes: 0x300 of them. */
const BITS = 96;

const room = new Native(256);
const events = new Native(EVENT * BATCH);

function ask(fd: number, number: number, length: number, what: string): number {
  return check(
    libc.ioctl(fd, reading(number, length), room.address),
    "ioctl",
    () => `asking an input device for its ${what}`,
  );
}

/** Text that an input device may not have. */
function text(fd: number, number: number, what: string): string {
  room.bytes.fill(0);
  // ENOENT: it has none.
  if (libc.ioctl(fd, reading(number, 128), room.address) < 0) {
    const reason = errno();
    if (reason === Errno.ENOENT) return "";
    throw new OsError("ioctl", reason, `asking an input device for its ${what}`);
  }
  const end = room.bytes.indexOf(0);
  return new TextDecoder().decode(room.bytes.subarray(0, Math.min(end < 0 ? 128 : end, 128)));
}

/** The numbers of the bits that are set. */
function bits(fd: number, number: number, what: string): number[] {
  room.bytes.fill(0);
  ask(fd, number, BITS, what);
  const found: number[] = [];
  for (let i = 0; i < BITS * 8; i++) if ((room.bytes[i >> 3] & 1 << (i & 7)) !== 0) found.push(i);
  return found;
}

/** Types of events whose codes can be asked for: KEY, REL, ABS, MSC, SW, LED, SND. Of the others (REP) it is an error. */
const WITH_CODES = [1, 2, 3, 4, 5, 0x11, 0x12];

/**
 * Opens an input device. The descriptor is non-blocking and the caller's.
 *
 * @throws {OsError} when it cannot be opened, or (ENOTTY) is no input device
 */
export function openEvdev(path: string): number {
  const fd = openFile(path, OpenFlag.READ_WRITE | OpenFlag.NONBLOCK);
  try {
    const { kind } = fileStatus(fd);
    if (kind !== "character device") throw new TypeError(`${path} is no input device, but a ${kind}`);
    setNonblocking(fd);
    ask(fd, NUMBER.ID, 8, "identity");
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** What an input device says of itself. */
export interface EvdevDescription {
  /** Its name, and its serial number or "". */
  readonly name: string;
  readonly serial: string;
  /** Bus, vendor, product, version. */
  readonly ids: readonly [number, number, number, number];
  /** Numbers of its properties. */
  readonly properties: readonly number[];
  /** Codes by type of event. */
  readonly events: ReadonlyMap<number, readonly number[]>;
}

/**
 * Asks an input device what it is.
 *
 * @throws {OsError}
 */
export function describeEvdev(fd: number): EvdevDescription {
  const name = text(fd, NUMBER.NAME, "name");
  const serial = text(fd, NUMBER.UNIQUE, "serial number");
  ask(fd, NUMBER.ID, 8, "identity");
  const id = (at: number): number => room.view.getUint16(at, littleEndian);
  const ids = [id(0), id(2), id(4), id(6)] as const;
  const properties = bits(fd, NUMBER.PROPERTIES, "properties");
  const types = bits(fd, NUMBER.BITS, "types of events").filter((type) => type > 0 && type < 0x20);
  return {
    name,
    serial,
    ids,
    properties,
    events: new Map(
      types.map((
        type,
      ) => [type, WITH_CODES.includes(type) ? bits(fd, NUMBER.BITS + type, `events of type ${type}`) : []]),
    ),
  };
}

/** An absolute axis: where it is, and its range. */
export interface EvdevAxis {
  /** Where it is now. */
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly fuzz: number;
  readonly flat: number;
  readonly resolution: number;
}

/**
 * Asks an input device for an absolute axis.
 *
 * @throws {OsError}
 */
export function evdevAxis(fd: number, code: number): EvdevAxis {
  ask(fd, NUMBER.AXIS + code, 24, `axis ${code}`);
  const [value, min, max, fuzz, flat, resolution] = [0, 4, 8, 12, 16, 20].map((at) => room.get32(at));
  return { value, min, max, fuzz, flat, resolution };
}

/**
 * Codes of keys that are pressed, or of switches that are on.
 *
 * @throws {OsError}
 */
export function evdevPressed(fd: number, what: "keys" | "switches"): number[] {
  return bits(fd, what === "keys" ? NUMBER.KEYS : NUMBER.SWITCHES, what);
}

/**
 * Takes an input device for oneself: nobody else, such as the machine's own console, gets its events; or gives it back.
 *
 * @throws {OsError} EBUSY when another has it
 */
export function grabEvdev(fd: number, grab: boolean): void {
  check(
    libc.ioctl(fd, GRAB, grab ? 1n : 0n),
    "ioctl",
    `${grab ? "grabbing" : "giving back"} an input device`,
  );
}

/**
 * Reads events, up to 64 of them.
 *
 * @returns how many were read; 0 when there is none now
 * @throws {OsError} ENODEV when the device is gone
 */
export function readEvdev(fd: number, take: (type: number, code: number, value: number) => void): number {
  const length = libc.read(fd, events.address, BigInt(EVENT * BATCH));
  if (length < 0) {
    const number = errno();
    if (number === Errno.EAGAIN || number === Errno.EINTR) return 0;
    throw new OsError("read", number, "reading an input device");
  }
  const count = Math.floor(length / EVENT);
  for (let i = 0; i < count; i++) {
    const at = i * EVENT + 16;
    take(
      events.view.getUint16(at, littleEndian),
      events.view.getUint16(at + 2, littleEndian),
      events.get32(at + 4),
    );
  }
  return count;
}

/**
 * Sends an event to the device, such as a light.
 *
 * @throws {OsError}
 */
export function writeEvdev(fd: number, type: number, code: number, value: number): void {
  room.bytes.fill(0, 0, EVENT);
  room.view.setUint16(16, type, littleEndian);
  room.view.setUint16(18, code, littleEndian);
  room.set32(20, value);
  check(libc.write(fd, room.address, BigInt(EVENT)), "write", "sending an event to an input device");
}
