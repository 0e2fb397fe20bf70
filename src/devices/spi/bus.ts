/**
 * What is behind an SPI controller.
 *
 * @module
 */

import { type SpiConfig, SpiMode, type SpiTransferHead } from "./layout.ts";

/** A bus. */
export interface SpiBus {
  /** What it can do. The device refuses what is not in it. */
  readonly config: SpiConfig;
  /**
   * Moves bytes in both directions at once. Called in the event loop, which stands still until it returns; an exception
   * fails the transfer.
   *
   * @param head whom to and how, checked against {@link config}
   * @param output bytes sent; zeroes where the guest only receives
   * @param input is filled with as many; not looked at where the guest only sends
   * @param direction what of it the guest asked for
   */
  transfer(head: SpiTransferHead, output: Uint8Array, input: Uint8Array, direction: SpiDirection): void;
  /** Gives up what it holds; the bus is not used any more. */
  close?(): void;
}

/** Which way a transfer goes for the guest: it sends, receives, or both at once. */
export type SpiDirection = "send" | "receive" | "both";

/** A simulated part. */
export interface SpiPart {
  /**
   * Takes bytes and gives as many. All of a transfer come at once; there may be more before {@link deselect}. An exception
   * fails the transfer.
   *
   * @param output bytes from the controller
   * @param input to be filled, zero before
   */
  transfer(output: Uint8Array, input: Uint8Array, direction: SpiDirection): void;
  /** It is not selected any more. */
  deselect?(): void;
}

/** What every simulated bus can do: all modes of one bit's width, words of whole bytes. */
const CONFIG: Omit<SpiConfig, "csMaxNumber"> = {
  csChangeSupported: 1,
  txNbitsSupported: 0,
  rxNbitsSupported: 0,
  bitsPerWordMask: 0x8080_8080,
  modeFuncSupported: 0x7f,
  maxFreqHz: 0,
  maxWordDelayNs: 0xffff_ffff,
  maxCsSetupNs: 0xffff_ffff,
  maxCsHoldNs: 0xffff_ffff,
  maxCsInactiveNs: 0xffff_ffff,
};

/** A bus of simulated parts, each at the chip select that is its place in the list. Time does not pass on it. */
export class SimulatedSpiBus implements SpiBus {
  /** What it can do. */
  readonly config: SpiConfig;
  readonly #parts: readonly SpiPart[];

  /**
   * Makes one.
   *
   * @throws {RangeError} for none or more than 255 parts
   */
  constructor(parts: readonly SpiPart[]) {
    if (parts.length < 1 || parts.length > 255) {
      throw new RangeError(`an SPI bus has 1 to 255 parts, got ${parts.length}`);
    }
    this.#parts = [...parts];
    this.config = { ...CONFIG, csMaxNumber: parts.length };
  }

  /** {@link SpiBus.transfer}. */
  transfer(head: SpiTransferHead, output: Uint8Array, input: Uint8Array, direction: SpiDirection): void {
    if ((head.mode & SpiMode.LOOP) !== 0) {
      input.set(output);
      return;
    }
    const part = this.#parts[head.chipSelectId];
    try {
      part.transfer(output, input, direction);
    } finally {
      if (head.csChange !== 0) part.deselect?.();
    }
  }
}
