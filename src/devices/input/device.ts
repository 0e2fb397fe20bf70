/**
 * The input device.
 *
 * @module
 */

import { Device, type DeviceBehaviour } from "../../backend/device.ts";
import { logToStderr } from "../../backend/log.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { EventGroup, EventQueue, MAX_GROUP } from "./event_queue.ts";
import { Abs, EVENT_SIZE, EventType, Syn } from "./layout.ts";
import { CheckedProfile, type InputProfile } from "./profile.ts";
import { InputState } from "./state.ts";
import { inputRequests } from "./request_format.ts";

/** An event: what happens, of a kind that the device's profile has. */
export interface InputEvent {
  /** One of {@link EventType}. */
  readonly type: number;
  /** Which key, axis or light. */
  readonly code: number;
  /** A key: 1 pressed, 0 released, 2 repeated. An axis: the movement or position. A light: 1 on, 0 off. */
  readonly value: number;
}

/** Told of an event of the guest: a light, a sound, the speed of repetition. */
export type StatusHandler = (type: number, code: number, value: number) => void;

/** How an input device behaves. */
export interface InputOptions {
  /** Told what the guest sends; only of what the profile has. */
  readonly onStatus?: StatusHandler;
}

/** Events of the guest that are looked at in one request. */
const MAX_STATUS = 64;

/**
 * An input device (virtio device 18; virtio 1.4, section 5.8). What is sent goes to every guest that is connected.
 *
 * @example A device of one's own: a button
 * ```ts
 * import { serve } from "@vhost/user";
 * import { EventType, InputDevice, Key } from "@vhost/user/devices/input";
 *
 * const button = new InputDevice({ name: "doorbell", events: new Map([[EventType.KEY, [Key.ENTER]]]) });
 * const server = await serve(button, { socketPath: `/tmp/button-${crypto.randomUUID()}.sock` });
 * button.send([{ type: EventType.KEY, code: Key.ENTER, value: 1 }]);
 * button.send([{ type: EventType.KEY, code: Key.ENTER, value: 0 }]);
 * // … and when it is no longer needed:
 * server.close();
 * ```
 */
export class InputDevice extends Device {
  /** What it says that it is. */
  readonly profile: InputProfile;
  /** How things are now. */
  protected readonly state: InputState = new InputState();
  readonly #checked: CheckedProfile;
  readonly #queues = new Set<EventQueue>();
  readonly #group = new EventGroup();
  readonly #waiting: (() => void)[] = [];
  readonly #onStatus: StatusHandler | undefined;

  /**
   * A device that nobody is connected to.
   *
   * @throws {RangeError} for a profile that the configuration space cannot say
   */
  constructor(profile: InputProfile, options: InputOptions = {}) {
    const checked = new CheckedProfile(profile);
    super({ type: 18, name: profile.name, requests: inputRequests, connect: () => this.#connect() });
    this.profile = profile;
    this.#checked = checked;
    this.#onStatus = options.onStatus;
  }

  #connect(): DeviceBehaviour {
    const events = new EventQueue(this.state, () => this.#drained());
    this.#queues.add(events);
    let select = 0;
    let subsel = 0;
    return {
      queues: [events, (chain) => this.#takeStatus(chain)],
      config: {
        read: () => this.#checked.answer(select, subsel),
        write: (offset, data) => {
          // The driver writes no other fields; some front-ends write them all.
          if (offset === 0 && data.length > 0) select = data[0];
          if (offset <= 1 && offset + data.length > 1) subsel = data[1 - offset];
        },
      },
      reset: () => {
        select = subsel = 0;
        events.reset();
      },
      disconnected: () => {
        this.#queues.delete(events);
        this.#drained();
      },
    };
  }

  /**
   * Sends a group of events, which the guest sees as happening at once.
   *
   * @throws {RangeError} for an event that the profile does not have, or more than {@link MAX_GROUP} of them; then none is sent
   */
  send(events: readonly InputEvent[]): void {
    if (events.length >= MAX_GROUP) {
      throw new RangeError(`a group has at most ${MAX_GROUP - 1} events, got ${events.length}`);
    }
    for (const { type, code, value } of events) this.#check(type, code, value);
    for (const { type, code, value } of events) this.emit(type, code, value);
    this.sync();
  }

  #check(type: number, code: number, value: number): void {
    if (!this.#checked.has(type, code)) {
      throw new RangeError(`${this.name} has no event of type ${type} and code ${code}`);
    }
    if (!Number.isInteger(value) || value < -0x8000_0000 || value > 0x7fff_ffff) {
      throw new RangeError(`${this.name}: an event's value is a whole number of 32 bits, got ${value}`);
    }
    if (type !== EventType.ABS || code !== Abs.MT_SLOT) return;
    const max = this.profile.axes?.get(code)?.max ?? 0;
    if (value < 0 || value > max) throw new RangeError(`${this.name} has slots 0 to ${max}, got ${value}`);
  }

  /** Whether the profile has an event. */
  protected has(type: number, code: number): boolean {
    return this.#checked.has(type, code);
  }

  /** Adds an event of the profile to the group; without a check. Returns false when the group is full. */
  protected emit(type: number, code: number, value: number): boolean {
    // Room is left for the event that ends the group.
    if (this.#group.count === MAX_GROUP - 1) return false;
    return this.#group.push(type, code, value);
  }

  /** Ends the group and sends it. */
  protected sync(): void {
    const group = this.#group;
    if (group.count === 0) return;
    for (let i = 0; i < group.count; i++) {
      const word = group.words[2 * i];
      this.state.apply(word & 0xffff, word >>> 16, group.words[2 * i + 1]);
    }
    group.push(EventType.SYN, Syn.REPORT, 0);
    for (const queue of this.#queues) queue.offer(group);
    group.count = 0;
  }

  /** Forgets the group that was begun. */
  protected cancel(): void {
    this.#group.count = 0;
  }

  /** Resolves when the guests have been given all that was sent; at once when there is none. */
  drained(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#drained();
    });
  }

  #drained(): void {
    if (this.#waiting.length === 0) return;
    for (const queue of this.#queues) if (!queue.drained) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #takeStatus({ readable }: Chain): void {
    const count = Math.min(MAX_STATUS, Math.floor(readable.byteLength / EVENT_SIZE));
    for (let i = 0; i < count; i++) {
      const type = readable.getUint16(i * EVENT_SIZE);
      const code = readable.getUint16(i * EVENT_SIZE + 2);
      const value = readable.getUint32(i * EVENT_SIZE + 4) | 0;
      const known = type === EventType.REP
        ? code <= 1 && this.profile.events.has(type)
        : this.has(type, code);
      if (!known || type < EventType.LED) continue;
      try {
        this.status(type, code, value);
        this.#onStatus?.(type, code, value);
      } catch (error) {
        logToStderr("warning", `${this.name}: handling an event of the guest failed`, error);
      }
    }
  }

  /** For kinds of devices: an event of the guest that the profile has. */
  protected status(_type: number, _code: number, _value: number): void {}
}
