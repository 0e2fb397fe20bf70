/**
 * What an input device says that it is.
 *
 * @module
 */

import { Key } from "./codes.ts";
import {
  Abs,
  ANSWER,
  CONFIG_SIZE,
  EventType,
  Led,
  MAX_ANSWER,
  MAX_CODE,
  MAX_EVENT_TYPE,
  Property,
  Rel,
  Select,
} from "./layout.ts";

/** Range of an absolute axis. */
export interface AbsInfo {
  /** Lowest value. */
  readonly min: number;
  /** Highest value. */
  readonly max: number;
  /** How far a value may be off without meaning anything. 0 by default. */
  readonly fuzz?: number;
  /** How far from the middle a value still means the middle. 0 by default. */
  readonly flat?: number;
  /** Units per mm. 0 by default: not known. */
  readonly resolution?: number;
}

/** The description of an input device. */
export interface InputProfile {
  /** Its name, up to 128 bytes of UTF-8. */
  readonly name: string;
  /** Serial number. */
  readonly serial?: string;
  /** Who made it; QEMU's tablet has bus 6 (BUS_VIRTUAL), vendor 0x627, product 3, version 2. */
  readonly ids?: {
    readonly bus: number;
    readonly vendor: number;
    readonly product: number;
    readonly version: number;
  };
  /** Numbers of {@link Property}. */
  readonly properties?: readonly number[];
  /** Codes that it sends or takes, by {@link EventType}. */
  readonly events: ReadonlyMap<number, readonly number[]>;
  /** Ranges of the absolute axes among them. */
  readonly axes?: ReadonlyMap<number, AbsInfo>;
}

/** Codes from one to another. */
function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

const BUTTONS = [Key.BTN_LEFT, Key.BTN_RIGHT, Key.BTN_MIDDLE, Key.BTN_SIDE, Key.BTN_EXTRA];

/** A keyboard with all keys of a desktop, and three lights. */
export function keyboardProfile(name = "vhost-user keyboard"): InputProfile {
  return {
    name,
    events: new Map<number, readonly number[]>([
      [EventType.KEY, range(1, 248)],
      [EventType.LED, [Led.NUM_LOCK, Led.CAPS_LOCK, Led.SCROLL_LOCK]],
      // The guest repeats what is held.
      [EventType.REP, []],
    ]),
  };
}

/** A mouse with five buttons and two wheels. */
export function mouseProfile(name = "vhost-user mouse"): InputProfile {
  return {
    name,
    events: new Map<number, readonly number[]>([
      [EventType.KEY, BUTTONS],
      [EventType.REL, [Rel.X, Rel.Y, Rel.WHEEL, Rel.HWHEEL]],
    ]),
  };
}

/** Highest position of a tablet or touch screen. */
export const MAX_POSITION = 32767;

/** A pointer with positions rather than movements: the cursor is where the host's is. */
export function tabletProfile(name = "vhost-user tablet"): InputProfile {
  const axis = { min: 0, max: MAX_POSITION };
  return {
    name,
    events: new Map<number, readonly number[]>([
      [EventType.KEY, BUTTONS],
      [EventType.REL, [Rel.WHEEL, Rel.HWHEEL]],
      [EventType.ABS, [Abs.X, Abs.Y]],
    ]),
    axes: new Map([[Abs.X, axis], [Abs.Y, axis]]),
  };
}

/** A touch screen for several fingers. */
export function touchProfile(name = "vhost-user touch screen", slots = 10): InputProfile {
  if (!Number.isInteger(slots) || slots < 1 || slots > 100) {
    throw new RangeError(`a touch screen has 1 to 100 slots, got ${slots}`);
  }
  const axis = { min: 0, max: MAX_POSITION };
  return {
    name,
    properties: [Property.DIRECT],
    events: new Map<number, readonly number[]>([
      [EventType.KEY, [Key.BTN_TOUCH]],
      [
        EventType.ABS,
        [Abs.X, Abs.Y, Abs.MT_SLOT, Abs.MT_TRACKING_ID, Abs.MT_POSITION_X, Abs.MT_POSITION_Y],
      ],
    ]),
    axes: new Map([
      [Abs.X, axis],
      [Abs.Y, axis],
      [Abs.MT_SLOT, { min: 0, max: slots - 1 }],
      [Abs.MT_TRACKING_ID, { min: 0, max: 65535 }],
      [Abs.MT_POSITION_X, axis],
      [Abs.MT_POSITION_Y, axis],
    ]),
  };
}

/** A profile that was checked, with what the driver may ask for. */
export class CheckedProfile {
  /** What it says. */
  readonly profile: InputProfile;
  readonly #answers = new Map<number, Uint8Array>();
  readonly #codes = new Map<number, Set<number>>();

  /**
   * Checks a profile.
   *
   * @throws {RangeError} for what the configuration space cannot say
   */
  constructor(profile: InputProfile) {
    this.profile = profile;
    const { name, serial, ids, properties = [], events, axes = new Map<number, AbsInfo>() } = profile;
    this.#put(Select.NAME, 0, text("name", name));
    if (serial !== undefined) this.#put(Select.SERIAL, 0, text("serial", serial));
    if (ids !== undefined) {
      this.#put(
        Select.DEVIDS,
        0,
        new Uint8Array(Uint16Array.of(ids.bus, ids.vendor, ids.product, ids.version).buffer),
      );
    }
    if (properties.length > 0) this.#put(Select.PROP_BITS, 0, bitmap("property", properties, 0x1f));
    for (const [type, codes] of events) {
      if (!Number.isInteger(type) || type < 1 || type > MAX_EVENT_TYPE) {
        throw new RangeError(`event type must be 1 to ${MAX_EVENT_TYPE}, got ${type}`);
      }
      this.#codes.set(type, new Set(codes));
      // A type without codes is there all the same: REP.
      this.#put(Select.EV_BITS, type, bitmap(`code of event type ${type}`, codes, MAX_CODE));
      if (type !== EventType.ABS) continue;
      for (const code of codes) {
        const info = axes.get(code);
        if (info === undefined) throw new RangeError(`absolute axis ${code} has no range in axes`);
        const { min, max, fuzz = 0, flat = 0, resolution = 0 } = info;
        if (!(min <= max)) throw new RangeError(`absolute axis ${code} ranges from ${min} to ${max}`);
        this.#put(
          Select.ABS_INFO,
          code,
          new Uint8Array(Int32Array.of(min, max, fuzz, flat, resolution).buffer),
        );
      }
    }
  }

  #put(select: number, subsel: number, answer: Uint8Array): void {
    this.#answers.set(select << 8 | subsel, answer);
  }

  /** Whether it has events of a type and code. */
  has(type: number, code: number): boolean {
    return this.#codes.get(type)?.has(code) === true;
  }

  /** Fills the configuration space with the answer to what the driver has selected. */
  answer(select: number, subsel: number): Uint8Array {
    const config = new Uint8Array(CONFIG_SIZE);
    const answer = this.#answers.get(select << 8 | subsel);
    config[0] = select;
    config[1] = subsel;
    if (answer === undefined) return config;
    config[2] = answer.length;
    config.set(answer, ANSWER);
    return config;
  }
}

function text(what: string, value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  if (bytes.length === 0 || bytes.length > MAX_ANSWER || bytes.includes(0)) {
    throw new RangeError(
      `${what} of an input device must have 1 to ${MAX_ANSWER} bytes and no zero byte, got ${
        JSON.stringify(value)
      }`,
    );
  }
  return bytes;
}

/** Bits as bytes, as many as the highest needs and one at least. */
function bitmap(what: string, numbers: readonly number[], highest: number): Uint8Array {
  const bits = new Uint8Array(1 + (Math.max(0, ...numbers) >> 3));
  for (const number of numbers) {
    if (!Number.isInteger(number) || number < 0 || number > highest) {
      throw new RangeError(`${what} must be 0 to ${highest}, got ${number}`);
    }
    bits[number >> 3] |= 1 << (number & 7);
  }
  return bits;
}
