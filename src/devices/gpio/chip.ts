/**
 * What is behind a GPIO device.
 *
 * @module
 */

import type { GpioDirection, GpioInterrupt, GpioLevel } from "./layout.ts";

/**
 * Lines that a guest may use. Lines are numbers from 0, checked by the device. Any function may throw: the guest's request
 * fails then. All are called in the event loop, which stands still until they return.
 */
export interface GpioChip {
  /** A name for each line, or `""`: printable ASCII, none twice. Their number is the number of lines. */
  readonly names: readonly string[];
  /** Which way a line goes. */
  direction(line: number): GpioDirection;
  /** Sets it. `NONE` gives the line up: it forgets the value that was set. */
  setDirection(line: number, direction: GpioDirection): void;
  /** The level that is on the wire. */
  value(line: number): GpioLevel;
  /** Sets the level that the line has while it is an output; it may become one later. */
  setValue(line: number, level: GpioLevel): void;
  /** Says which changes of a line are worth telling, before they are waited for; those of a level mean both edges. */
  sense(line: number, interrupt: GpioInterrupt): void;
  /** Calls back when a line has changed, until it is called with `undefined`. There is one listener at a time. */
  watch(listener: ((line: number, level: GpioLevel) => void) | undefined): void;
  /** Gives up what it holds; the chip is not used any more. */
  close?(): void;
}
