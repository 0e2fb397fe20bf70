/**
 * The lines of a GPIO chip of this machine.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import {
  configureGpioLine,
  GpioLineFlag,
  gpioLineNames,
  gpioLineValue,
  openGpioChip,
  readGpioEdges,
  requestGpioLine,
  setGpioLineValue,
} from "../../../ffi/gpio.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import type { GpioChip } from "./chip.ts";
import { GpioDirection, GpioInterrupt, type GpioLevel } from "./layout.ts";

/** How a host's chip is used. */
export interface HostGpioOptions {
  /** The chip's device, such as `/dev/gpiochip0`. */
  readonly path: string;
  /** Which of its lines the guest gets, in this order; all by default. */
  readonly lines?: readonly number[];
  /** Watches for edges; the process's by default. */
  readonly reactor?: Reactor;
}

/** A line in use. */
interface Line {
  readonly fd: number;
  direction: GpioDirection;
  watched: boolean;
}

/**
 * Lines of `/dev/gpiochipN`. A line is taken when the guest gives it a direction, and given up with that; until then
 * other programs may have it, and its level cannot be read.
 *
 * Written by the kernel's interface, version 2 (`linux/gpio.h`); it was not tried on hardware.
 */
export class HostGpioChip implements GpioChip {
  /** Names of the lines. */
  readonly names: readonly string[];
  readonly #chip: number;
  readonly #offsets: readonly number[];
  readonly #reactor: Reactor;
  readonly #lines: (Line | undefined)[];
  readonly #outputs: GpioLevel[];
  #listener: ((line: number, level: GpioLevel) => void) | undefined;

  /**
   * Opens a chip.
   *
   * @throws {OsError} when it cannot be opened, or is none
   * @throws {RangeError} for a line that it does not have
   */
  constructor(options: HostGpioOptions) {
    this.#reactor = options.reactor ?? Reactor.shared();
    const chip = this.#chip = openGpioChip(options.path);
    try {
      const all = gpioLineNames(chip);
      const offsets = this.#offsets = options.lines ?? all.map((_, line) => line);
      for (const line of offsets) {
        if (!(Number.isInteger(line) && line >= 0 && line < all.length)) {
          throw new RangeError(`${options.path} has lines 0 to ${all.length - 1}, got ${line}`);
        }
      }
      // What the kernel takes for a name, a guest may not.
      const seen = new Set<string>();
      this.names = offsets.map((line) => {
        const name = all[line];
        if (!/^[ -~]+$/.test(name) || seen.has(name)) return "";
        seen.add(name);
        return name;
      });
    } catch (error) {
      close(chip);
      throw error;
    }
    this.#lines = new Array<Line | undefined>(this.names.length).fill(undefined);
    this.#outputs = new Array<GpioLevel>(this.names.length).fill(0);
  }

  /** {@link GpioChip.direction}. */
  direction(line: number): GpioDirection {
    return this.#lines[line]?.direction ?? GpioDirection.NONE;
  }

  /** {@link GpioChip.setDirection}. */
  setDirection(line: number, direction: GpioDirection): void {
    const used = this.#lines[line];
    if (direction === GpioDirection.NONE) {
      if (used !== undefined) this.#giveUp(line, used);
      this.#outputs[line] = 0;
      return;
    }
    const flags = direction === GpioDirection.OUT ? GpioLineFlag.OUTPUT : GpioLineFlag.INPUT;
    if (used === undefined) {
      const fd = requestGpioLine(this.#chip, this.#offsets[line], flags, this.#outputs[line]);
      this.#lines[line] = { fd, direction, watched: false };
    } else if (used.direction !== direction) {
      this.#unwatch(used);
      configureGpioLine(used.fd, flags, this.#outputs[line]);
      used.direction = direction;
    }
  }

  /** {@link GpioChip.value}. */
  value(line: number): GpioLevel {
    const used = this.#lines[line];
    return used === undefined ? 0 : gpioLineValue(used.fd);
  }

  /** {@link GpioChip.setValue}. */
  setValue(line: number, level: GpioLevel): void {
    this.#outputs[line] = level;
    const used = this.#lines[line];
    if (used?.direction === GpioDirection.OUT) setGpioLineValue(used.fd, level);
  }

  /** {@link GpioChip.sense}. */
  sense(line: number, interrupt: GpioInterrupt): void {
    const used = this.#lines[line];
    if (used?.direction !== GpioDirection.IN) return;
    let flags: number = GpioLineFlag.INPUT;
    // A level is looked at after each edge.
    if (interrupt !== GpioInterrupt.NONE && interrupt !== GpioInterrupt.EDGE_FALLING) {
      flags |= GpioLineFlag.EDGE_RISING;
    }
    if (interrupt !== GpioInterrupt.NONE && interrupt !== GpioInterrupt.EDGE_RISING) {
      flags |= GpioLineFlag.EDGE_FALLING;
    }
    configureGpioLine(used.fd, flags, 0);
    if (interrupt === GpioInterrupt.NONE) return this.#unwatch(used);
    if (used.watched) return;
    used.watched = true;
    this.#reactor.watch(used.fd, () => {
      for (const level of readGpioEdges(used.fd)) this.#listener?.(line, level);
    });
  }

  /** {@link GpioChip.watch}. */
  watch(listener: ((line: number, level: GpioLevel) => void) | undefined): void {
    this.#listener = listener;
  }

  /** Gives up all lines and the chip. */
  close(): void {
    this.#lines.forEach((used, line) => {
      if (used !== undefined) this.#giveUp(line, used);
    });
    close(this.#chip);
  }

  #unwatch(used: Line): void {
    if (used.watched) this.#reactor.unwatch(used.fd);
    used.watched = false;
  }

  #giveUp(line: number, used: Line): void {
    this.#unwatch(used);
    close(used.fd);
    this.#lines[line] = undefined;
  }
}
