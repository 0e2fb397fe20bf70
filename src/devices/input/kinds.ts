/**
 * Keyboards, mice, tablets and touch screens.
 *
 * @module
 */

import { Key, type KeyName, keyOf } from "./codes.ts";
import { InputDevice, type InputOptions } from "./device.ts";
import { Abs, EventType, Led, Rel } from "./layout.ts";
import { keyboardProfile, MAX_POSITION, mouseProfile, tabletProfile, touchProfile } from "./profile.ts";

/** How a device of these kinds is named, and who is told of events of the guest. */
export interface KindOptions extends InputOptions {
  /** Its name. */
  readonly name?: string;
}

/**
 * A keyboard.
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { Keyboard } from "@vhost/user/devices/input";
 *
 * const keyboard = new Keyboard();
 * const server = await serve(keyboard, { socketPath: `/tmp/keyboard-${crypto.randomUUID()}.sock` });
 * await keyboard.type("root\n");
 * keyboard.press("LEFTCTRL", "C");
 * keyboard.release("C", "LEFTCTRL");
 * // … and when it is no longer needed:
 * server.close();
 * ```
 */
export class Keyboard extends InputDevice {
  readonly #leds = new Set<number>();

  /** A keyboard on which nothing is pressed. */
  constructor(options: KindOptions = {}) {
    super(keyboardProfile(options.name), options);
  }

  /** Presses keys, one after the other. */
  press(...keys: readonly KeyName[]): void {
    for (const key of keys) this.send([{ type: EventType.KEY, code: Key[key], value: 1 }]);
  }

  /** Releases keys, one after the other. */
  release(...keys: readonly KeyName[]): void {
    for (const key of keys) this.send([{ type: EventType.KEY, code: Key[key], value: 0 }]);
  }

  /** Presses and releases a key, while others are held. */
  tap(key: KeyName, ...held: readonly KeyName[]): void {
    this.press(...held, key);
    this.release(key, ...held.toReversed());
  }

  /**
   * Types text as on a US keyboard, no faster than the guest takes it.
   *
   * @throws {RangeError} for a character that is not there; then nothing is typed
   */
  async type(text: string): Promise<void> {
    const keys = [...text].map((character) => {
      const key = keyOf(character);
      if (key !== undefined) return key;
      throw new RangeError(`a US keyboard has no ${JSON.stringify(character)}`);
    });
    for (const { code, shift } of keys) {
      if (shift) this.send([{ type: EventType.KEY, code: Key.LEFTSHIFT, value: 1 }]);
      this.send([{ type: EventType.KEY, code, value: 1 }]);
      this.send([{ type: EventType.KEY, code, value: 0 }]);
      if (shift) this.send([{ type: EventType.KEY, code: Key.LEFTSHIFT, value: 0 }]);
      await this.drained();
    }
  }

  /** Whether a light is on, as the guest has last said. */
  isLit(led: keyof typeof Led): boolean {
    return this.#leds.has(Led[led]);
  }

  /** Takes note of lights. */
  protected override status(type: number, code: number, value: number): void {
    if (type !== EventType.LED) return;
    if (value === 0) this.#leds.delete(code);
    else this.#leds.add(code);
  }
}

/** Buttons of a mouse or tablet. */
const BUTTONS: Readonly<Record<ButtonName, number>> = {
  left: Key.BTN_LEFT,
  right: Key.BTN_RIGHT,
  middle: Key.BTN_MIDDLE,
  side: Key.BTN_SIDE,
  extra: Key.BTN_EXTRA,
};

/** The name of a button. */
export type ButtonName = "left" | "right" | "middle" | "side" | "extra";

/** What a mouse and a tablet have in common. */
export abstract class Pointer extends InputDevice {
  /** Presses a button. */
  press(button: ButtonName = "left"): void {
    this.send([{ type: EventType.KEY, code: BUTTONS[button], value: 1 }]);
  }

  /** Releases a button. */
  release(button: ButtonName = "left"): void {
    this.send([{ type: EventType.KEY, code: BUTTONS[button], value: 0 }]);
  }

  /** Presses and releases a button. */
  click(button: ButtonName = "left"): void {
    this.press(button);
    this.release(button);
  }

  /** Turns the wheels: up and to the right is positive. */
  scroll(vertical: number, horizontal = 0): void {
    this.send([
      ...vertical === 0 ? [] : [{ type: EventType.REL, code: Rel.WHEEL, value: vertical }],
      ...horizontal === 0 ? [] : [{ type: EventType.REL, code: Rel.HWHEEL, value: horizontal }],
    ]);
  }
}

/** A mouse. */
export class Mouse extends Pointer {
  /** A mouse with no button pressed. */
  constructor(options: KindOptions = {}) {
    super(mouseProfile(options.name), options);
  }

  /** Moves it: to the right and down is positive. */
  move(x: number, y: number): void {
    this.send([
      ...x === 0 ? [] : [{ type: EventType.REL, code: Rel.X, value: x }],
      ...y === 0 ? [] : [{ type: EventType.REL, code: Rel.Y, value: y }],
    ]);
  }
}

function position(what: string, value: number): number {
  if (!(value >= 0 && value <= MAX_POSITION)) {
    throw new RangeError(`${what} must be 0 to ${MAX_POSITION}, got ${value}`);
  }
  return Math.round(value);
}

/** A pointer that says where it is. */
export class Tablet extends Pointer {
  /** A tablet with no button pressed. */
  constructor(options: KindOptions = {}) {
    super(tabletProfile(options.name), options);
  }

  /**
   * Goes to a place.
   *
   * @param x 0 (left) to 32767
   * @param y 0 (top) to 32767
   */
  moveTo(x: number, y: number): void {
    this.send([
      { type: EventType.ABS, code: Abs.X, value: position("x", x) },
      { type: EventType.ABS, code: Abs.Y, value: position("y", y) },
    ]);
  }
}

/** How a touch screen is made. */
export interface TouchOptions extends KindOptions {
  /** Fingers at once, 1 to 100; 10 by default. */
  readonly slots?: number;
}

/** A touch screen for several fingers (Linux, multi-touch protocol B). The first finger is a pointer, too. */
export class TouchScreen extends InputDevice {
  readonly #fingers = new Map<number, { x: number; y: number }>();
  #nextId = 0;

  /** A screen that nobody touches. */
  constructor(options: TouchOptions = {}) {
    super(touchProfile(options.name, options.slots), options);
  }

  /**
   * Puts a finger down, or moves it.
   *
   * @param slot which finger, from 0
   * @param x 0 (left) to 32767
   * @param y 0 (top) to 32767
   */
  touch(slot: number, x: number, y: number): void {
    const at = { x: position("x", x), y: position("y", y) };
    const { ABS, KEY } = EventType;
    const isNew = !this.#fingers.has(slot);
    const isFirst = (isNew && this.#fingers.size === 0) || (!isNew && this.#first === slot);
    this.send([
      { type: ABS, code: Abs.MT_SLOT, value: slot },
      ...isNew ? [{ type: ABS, code: Abs.MT_TRACKING_ID, value: this.#nextId }] : [],
      { type: ABS, code: Abs.MT_POSITION_X, value: at.x },
      { type: ABS, code: Abs.MT_POSITION_Y, value: at.y },
      ...isNew && isFirst ? [{ type: KEY, code: Key.BTN_TOUCH, value: 1 }] : [],
      ...isFirst ? [{ type: ABS, code: Abs.X, value: at.x }, { type: ABS, code: Abs.Y, value: at.y }] : [],
    ]);
    if (isNew) this.#nextId = (this.#nextId + 1) & 0xffff;
    this.#fingers.set(slot, at);
  }

  /** The finger that has been there for the longest time. */
  get #first(): number | undefined {
    return this.#fingers.keys().next().value;
  }

  /** Lifts a finger; one that is not there is not an error. */
  lift(slot: number): void {
    if (!this.#fingers.delete(slot)) return;
    this.send([
      { type: EventType.ABS, code: Abs.MT_SLOT, value: slot },
      { type: EventType.ABS, code: Abs.MT_TRACKING_ID, value: -1 },
      ...this.#fingers.size > 0 ? [] : [{ type: EventType.KEY, code: Key.BTN_TOUCH, value: 0 }],
    ]);
  }
}
