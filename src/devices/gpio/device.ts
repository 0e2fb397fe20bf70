/**
 * The GPIO device.
 *
 * @module
 */

import { Device, type DeviceBehaviour } from "../../backend/device.ts";
import { has, mask } from "../../protocol/features.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { GpioChip } from "./chip.ts";
import { GpioEvents } from "./events.ts";
import {
  gpioConfig,
  GpioDirection,
  gpioFeatures,
  GpioInterrupt,
  GpioMessage,
  GpioStatus,
  REQUEST_SIZE,
  RESPONSE_SIZE,
} from "./layout.ts";
import { gpioRequests } from "./request_format.ts";

/** What a GPIO device is made of. */
export interface GpioOptions {
  /** Its lines; stays the caller's. */
  readonly chip: GpioChip;
  /** Told why a request of the guest has failed in the chip. */
  readonly onError?: (error: unknown) => void;
}

/**
 * The names as the driver gets them: each with a zero after it (virtio 1.4, 5.17.6.1).
 *
 * @throws {RangeError} for a number of lines or a name that cannot be
 */
function namesBlock(names: readonly string[]): Uint8Array {
  if (names.length < 1 || names.length > 0xffff) {
    throw new RangeError(`a GPIO device has 1 to 65535 lines, got ${names.length}`);
  }
  const seen = new Set<string>();
  for (const name of names) {
    if (!/^[ -~]*$/.test(name)) {
      throw new RangeError(`a line's name is printable ASCII, got ${JSON.stringify(name)}`);
    }
    if (name !== "" && seen.has(name)) throw new RangeError(`two lines are called ${JSON.stringify(name)}`);
    seen.add(name);
  }
  if (names.every((name) => name === "")) return new Uint8Array(0);
  return new TextEncoder().encode(names.map((name) => `${name}\0`).join(""));
}

const DIRECTIONS: readonly number[] = Object.values(GpioDirection);
const INTERRUPTS: readonly number[] = Object.values(GpioInterrupt);

/** GPIO lines for a virtual machine (virtio device 41). One guest at a time has them. */
export class GpioDevice extends Device {
  /**
   * Makes one.
   *
   * @throws {RangeError} when there are no lines or too many, or their names cannot be
   */
  constructor(options: GpioOptions) {
    const { chip, onError = () => {} } = options;
    const names = namesBlock(chip.names);
    super({
      type: 41,
      name: "gpio",
      requests: gpioRequests,
      features: mask(gpioFeatures.IRQ),
      exclusive: true,
      connect: () => new GpioGuest(chip, names, onError).behaviour,
    });
  }
}

/** The lines in the hands of one guest. */
class GpioGuest {
  readonly behaviour: DeviceBehaviour;
  readonly #chip: GpioChip;
  readonly #names: Uint8Array;
  readonly #events: GpioEvents;
  readonly #onError: (error: unknown) => void;
  readonly #response = new Uint8Array(RESPONSE_SIZE);
  #interrupts = false;

  constructor(chip: GpioChip, names: Uint8Array, onError: (error: unknown) => void) {
    this.#chip = chip;
    this.#names = names;
    this.#onError = onError;
    const events = this.#events = new GpioEvents(chip);
    chip.watch((line, level) => events.changed(line, level));
    this.behaviour = {
      queues: [(chain) => this.#request(chain), events],
      config: {
        read: () => gpioConfig.encode({ ngpio: chip.names.length, gpioNamesSize: names.length }),
      },
      negotiated: (features) => this.#interrupts = has(features, gpioFeatures.IRQ),
      reset: () => this.#release(),
      disconnected: () => {
        this.#release();
        chip.watch(undefined);
      },
    };
  }

  /** Gives every line up. */
  #release(): void {
    for (let line = 0; line < this.#chip.names.length; line++) {
      try {
        if (this.#events.type(line) !== GpioInterrupt.NONE) this.#events.setType(line, GpioInterrupt.NONE);
        if (this.#chip.direction(line) !== GpioDirection.NONE) {
          this.#chip.setDirection(line, GpioDirection.NONE);
        }
      } catch (error) {
        this.#onError(error);
      }
    }
  }

  #request(chain: Chain): void {
    const { readable, writable } = chain;
    const response = this.#response;
    response[0] = GpioStatus.ERR;
    response[1] = 0;
    if (readable.byteLength >= REQUEST_SIZE && writable.byteLength >= RESPONSE_SIZE) {
      const type = readable.getUint16(0);
      if (type === GpioMessage.GET_LINE_NAMES) {
        if (this.#sendNames(chain)) return;
      } else {
        try {
          const value = this.#carryOut(type, readable.getUint16(2), readable.getUint32(4));
          if (value >= 0) {
            response[0] = GpioStatus.OK;
            response[1] = value;
          }
        } catch (error) {
          this.#onError(error);
        }
      }
    }
    chain.write(response);
  }

  #sendNames(chain: Chain): boolean {
    const names = this.#names;
    if (names.length === 0 || chain.writable.byteLength < 1 + names.length) return false;
    chain.writable.setUint8(0, GpioStatus.OK);
    chain.writable.copyFrom(names, 1);
    chain.written = 1 + names.length;
    return true;
  }

  /** Returns the value of the answer, -1 for a request that cannot be carried out. */
  #carryOut(type: number, line: number, value: number): number {
    const chip = this.#chip;
    if (line >= chip.names.length) return -1;
    switch (type) {
      case GpioMessage.GET_DIRECTION:
        return chip.direction(line);
      case GpioMessage.SET_DIRECTION:
        if (!DIRECTIONS.includes(value)) return -1;
        if (value !== GpioDirection.IN) this.#events.setType(line, GpioInterrupt.NONE);
        chip.setDirection(line, value as GpioDirection);
        return 0;
      case GpioMessage.GET_VALUE:
        return chip.value(line);
      case GpioMessage.SET_VALUE:
        if (value > 1) return -1;
        chip.setValue(line, value === 1 ? 1 : 0);
        return 0;
      case GpioMessage.SET_IRQ_TYPE:
        if (!this.#interrupts || !INTERRUPTS.includes(value)) return -1;
        if (value !== GpioInterrupt.NONE && chip.direction(line) === GpioDirection.OUT) return -1;
        this.#events.setType(line, value as GpioInterrupt);
        return 0;
      default:
        return -1;
    }
  }
}
