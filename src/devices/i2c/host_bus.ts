/**
 * An I²C bus of this machine.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { i2cTransfer, openI2cBus } from "../../../ffi/i2c.ts";
import type { I2cBus, I2cSegment } from "./bus.ts";
import { TEN_BIT } from "./layout.ts";

/** How a host's bus is used. */
export interface HostI2cOptions {
  /** The bus's device, such as `/dev/i2c-2`. */
  readonly path: string;
  /** The addresses that the guest may use; no others are there for it. */
  readonly addresses: readonly number[];
}

/**
 * A bus of `/dev/i2c-N`. Written by the kernel's interface (`linux/i2c-dev.h`); it was not tried on hardware.
 *
 * The event loop stands still while the bus works: 100 kbit/s are 11 bytes a millisecond.
 */
export class HostI2cBus implements I2cBus {
  readonly #fd: number;
  readonly #addresses: ReadonlySet<number>;

  /**
   * Opens a bus.
   *
   * @throws {OsError} when it cannot be opened, or is none
   * @throws {Error} when the adapter knows no plain transactions, only those of SMBus
   */
  constructor(options: HostI2cOptions) {
    this.#addresses = new Set(options.addresses);
    this.#fd = openI2cBus(options.path);
  }

  /** {@link I2cBus.transfer}. */
  transfer(segments: readonly I2cSegment[]): number {
    if (!segments.every(({ address }) => this.#addresses.has(address))) return 0;
    // The kernel does not say which has failed.
    return i2cTransfer(
      this.#fd,
      segments.map(({ address, reads, data }) => ({
        address: address & ~TEN_BIT,
        tenBit: (address & TEN_BIT) !== 0,
        reads,
        data,
      })),
    );
  }

  /** Closes it. */
  close(): void {
    close(this.#fd);
  }
}
