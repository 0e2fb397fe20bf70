/**
 * An input device of this machine, passed through.
 *
 * @module
 */

import {
  describeEvdev,
  evdevAxis,
  evdevPressed,
  grabEvdev,
  openEvdev,
  readEvdev,
  writeEvdev,
} from "../../../ffi/evdev.ts";
import { close } from "../../../ffi/fd.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { logToStderr } from "../../backend/log.ts";
import { InputDevice } from "./device.ts";
import { Abs, EventType, Syn } from "./layout.ts";
import type { InputProfile } from "./profile.ts";

/** How a device of this machine is passed through. */
export interface EvdevOptions {
  /** Its path, such as `/dev/input/event3`. */
  readonly path: string;
  /** Whether it is for guests alone, rather than for this machine as well. True by default. */
  readonly grab?: boolean;
  /** Told when the device is gone. Says so on the standard error output by default. */
  readonly onGone?: (error: unknown) => void;
}

/** Types of events that are passed on; force feedback and power are not. */
const PASSED: readonly number[] = [
  EventType.KEY,
  EventType.REL,
  EventType.ABS,
  EventType.MSC,
  EventType.SW,
  EventType.LED,
  EventType.SND,
  EventType.REP,
];

function profileOf(fd: number): InputProfile {
  const { name, serial, ids: [bus, vendor, product, version], properties, events } = describeEvdev(fd);
  const axes = (events.get(EventType.ABS) ?? []).map((code) => [code, evdevAxis(fd, code)] as const);
  return {
    name: name === "" ? "input device" : name,
    serial: serial === "" ? undefined : serial,
    ids: { bus, vendor, product, version },
    properties: properties.filter((each) => each <= 0x1f),
    events: new Map([...events].filter(([type]) => PASSED.includes(type))),
    axes: new Map(axes),
  };
}

/** An input device of this machine, as guests see it: everything that it does happens there, too. */
export class EvdevDevice extends InputDevice {
  readonly #fd: number;
  readonly #reactor = Reactor.shared();
  readonly #onGone: (error: unknown) => void;
  #open = true;
  /** Whether events were lost, until the group is over. */
  #dropping = false;

  /**
   * Opens a device, and grabs it unless told otherwise.
   *
   * @throws {OsError} when it cannot be opened, is no input device, or (EBUSY) another has grabbed it
   */
  static open(options: EvdevOptions): EvdevDevice {
    const fd = openEvdev(options.path);
    try {
      if (options.grab !== false) grabEvdev(fd, true);
      return new EvdevDevice(fd, profileOf(fd), options);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /** Use {@link EvdevDevice.open}. Takes the descriptor over, unless it throws. */
  constructor(fd: number, profile: InputProfile, { path, onGone }: EvdevOptions) {
    super(profile);
    this.#fd = fd;
    this.#onGone = onGone ?? ((error) => logToStderr("error", `input: ${path} is gone`, error));
    // What is held already.
    this.#resync();
    this.#reactor.watch(fd, () => this.#receive(), undefined, true);
  }

  #receive(): void {
    try {
      for (let i = 0; i < 4 && readEvdev(this.#fd, this.#take) > 0; i++);
    } catch (error) {
      this.close();
      this.#onGone(error);
    }
  }

  readonly #take = (type: number, code: number, value: number): void => {
    if (type === EventType.SYN) {
      if (code === Syn.DROPPED) {
        this.cancel();
        this.#dropping = true;
      } else if (code === Syn.REPORT) {
        if (!this.#dropping) return this.sync();
        this.#dropping = false;
        this.#resync();
      }
    } else if (!this.#dropping && type < EventType.LED && this.has(type, code)) {
      // A group that is too long has lost its end: as if the kernel had.
      if (!this.emit(type, code, value)) {
        this.cancel();
        this.#dropping = true;
      }
    }
  };

  /** Tells guests how things are, after events were lost. Fingers are lifted; those that move are told of again. */
  #resync(): void {
    const pressed = new Set(evdevPressed(this.#fd, "keys"));
    for (const code of this.state.pressed()) if (!pressed.has(code)) this.emit(EventType.KEY, code, 0);
    for (const code of pressed) if (this.has(EventType.KEY, code)) this.emit(EventType.KEY, code, 1);
    const on = new Set(evdevPressed(this.#fd, "switches"));
    for (const code of this.profile.events.get(EventType.SW) ?? []) {
      this.emit(EventType.SW, code, on.has(code) ? 1 : 0);
    }
    for (const code of this.profile.events.get(EventType.ABS) ?? []) {
      if (code < Abs.MT_SLOT) this.emit(EventType.ABS, code, evdevAxis(this.#fd, code).value);
    }
    const current = this.has(EventType.ABS, Abs.MT_SLOT) ? evdevAxis(this.#fd, Abs.MT_SLOT).value : 0;
    const touched = this.state.touched();
    for (const slot of touched) {
      this.emit(EventType.ABS, Abs.MT_SLOT, slot);
      this.emit(EventType.ABS, Abs.MT_TRACKING_ID, -1);
    }
    if (touched.length > 0) this.emit(EventType.ABS, Abs.MT_SLOT, current);
    this.sync();
  }

  /** Lights and sounds of the guest are those of the device. */
  protected override status(type: number, code: number, value: number): void {
    if (this.#open) writeEvdev(this.#fd, type, code, value);
  }

  /** Gives the device back. Guests keep one at which nothing happens. */
  override close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#reactor.unwatch(this.#fd);
    // The grab goes with the descriptor.
    close(this.#fd);
  }
}
