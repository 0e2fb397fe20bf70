/**
 * GPIO lines that are not there.
 *
 * @module
 */

import type { GpioChip } from "./chip.ts";
import { GpioDirection, type GpioInterrupt, type GpioLevel } from "./layout.ts";

/**
 * Simulated lines. Each is a wire with two ends: the guest's, which drives it while it is an output, and the other, which
 * this program drives with {@link set}.
 *
 * @example A button and a lamp
 * ```ts
 * import { GpioDevice, GpioLines } from "@vhost/user/devices/gpio";
 *
 * const lines = new GpioLines(["button", "lamp"]);
 * lines.onChange = (line, level) => console.log(`${lines.names[line]} is ${level ? "on" : "off"}`);
 * const device = new GpioDevice({ chip: lines });
 * lines.set(0, 1); // Pressed: the guest gets an interrupt, if it has asked for one.
 * ```
 */
export class GpioLines implements GpioChip {
  /** Names of the lines. */
  readonly names: readonly string[];
  /** Called when the guest has changed the level of a wire. */
  onChange: (line: number, level: GpioLevel) => void = () => {};
  readonly #directions: GpioDirection[];
  readonly #outputs: GpioLevel[];
  readonly #inputs: GpioLevel[];
  readonly #wires: number[][];
  #listener: ((line: number, level: GpioLevel) => void) | undefined;

  /** Lines by name, or just a number of them; all low. */
  constructor(lines: number | readonly string[]) {
    this.names = typeof lines === "number" ? new Array<string>(lines).fill("") : [...lines];
    const count = this.names.length;
    this.#directions = new Array<GpioDirection>(count).fill(GpioDirection.NONE);
    this.#outputs = new Array<GpioLevel>(count).fill(0);
    this.#inputs = new Array<GpioLevel>(count).fill(0);
    this.#wires = Array.from({ length: count }, () => []);
  }

  #check(line: number): void {
    if (!Number.isInteger(line) || line < 0 || line >= this.names.length) {
      throw new RangeError(`line must be 0 to ${this.names.length - 1}, got ${line}`);
    }
  }

  /**
   * Drives a line from outside; seen by the guest unless the line is an output of its.
   *
   * @throws {RangeError} for a line that is not there
   */
  set(line: number, level: GpioLevel | boolean): void {
    this.#check(line);
    const before = this.value(line);
    this.#inputs[line] = level ? 1 : 0;
    const after = this.value(line);
    if (after !== before) this.#listener?.(line, after);
  }

  /**
   * Connects two lines: what the guest puts out on `from` drives `to`.
   *
   * @throws {RangeError} for a line that is not there, or with itself
   */
  wire(from: number, to: number): void {
    this.#check(from);
    this.#check(to);
    if (from === to) throw new RangeError(`line ${from} cannot be wired to itself`);
    this.#wires[from].push(to);
    this.set(to, this.value(from));
  }

  /** {@link GpioChip.direction}. */
  direction(line: number): GpioDirection {
    this.#check(line);
    return this.#directions[line];
  }

  /** {@link GpioChip.setDirection}. */
  setDirection(line: number, direction: GpioDirection): void {
    this.#check(line);
    this.#change(line, () => {
      this.#directions[line] = direction;
      if (direction === GpioDirection.NONE) this.#outputs[line] = 0;
    });
  }

  /** {@link GpioChip.value}. */
  value(line: number): GpioLevel {
    this.#check(line);
    return this.#directions[line] === GpioDirection.OUT ? this.#outputs[line] : this.#inputs[line];
  }

  /** {@link GpioChip.setValue}. */
  setValue(line: number, level: GpioLevel): void {
    this.#check(line);
    this.#change(line, () => this.#outputs[line] = level);
  }

  #change(line: number, change: () => void): void {
    const before = this.value(line);
    change();
    const level = this.value(line);
    if (level === before) return;
    this.onChange(line, level);
    for (const to of this.#wires[line]) this.set(to, level);
  }

  /** {@link GpioChip.sense}. */
  sense(_line: number, _interrupt: GpioInterrupt): void {
    // All changes are told.
  }

  /** {@link GpioChip.watch}. */
  watch(listener: ((line: number, level: GpioLevel) => void) | undefined): void {
    this.#listener = listener;
  }
}
