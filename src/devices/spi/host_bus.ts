/**
 * An SPI part of this machine.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { openSpiPart, spiModeOf, spiSpeed, spiTransfer } from "../../../ffi/spi.ts";
import type { SpiBus, SpiDirection } from "./bus.ts";
import { type SpiConfig, SpiMode, type SpiTransferHead } from "./layout.ts";

/** The most bytes of a transfer, unless the module parameter of spidev says otherwise. */
const BUFFER = 4096;

/**
 * The part of `/dev/spidevB.C`, as the only one of the bus. It is selected for each transfer by itself, as a request of
 * virtio does not say which is a message's last. Words of 8 bits, one wire each way.
 *
 * Written by the kernel's interface (`linux/spi/spidev.h`); it was not tried on hardware. The event loop stands still while
 * the bus works.
 */
export class HostSpiBus implements SpiBus {
  /** What it can do. */
  readonly config: SpiConfig;
  readonly #fd: number;
  readonly #mode: number;

  /**
   * Opens a part.
   *
   * @throws {OsError} when it cannot be opened, or is none
   */
  constructor(options: { readonly path: string }) {
    const fd = this.#fd = openSpiPart(options.path);
    try {
      const mode = this.#mode = spiModeOf(fd);
      this.config = {
        csMaxNumber: 1,
        csChangeSupported: 1,
        txNbitsSupported: 0,
        rxNbitsSupported: 0,
        bitsPerWordMask: 1 << 7,
        // The mode is what the machine's description says of the part; the guest cannot change it.
        modeFuncSupported: ((mode & SpiMode.CPHA) !== 0 ? 2 : 1) | ((mode & SpiMode.CPOL) !== 0 ? 8 : 4) |
          (mode & (SpiMode.CS_HIGH | SpiMode.LSB_FIRST)) << 2,
        maxFreqHz: spiSpeed(fd),
        maxWordDelayNs: 0,
        maxCsSetupNs: 0,
        maxCsHoldNs: 0,
        maxCsInactiveNs: 0,
      };
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /** {@link SpiBus.transfer}. */
  transfer(head: SpiTransferHead, output: Uint8Array, input: Uint8Array, direction: SpiDirection): void {
    const given = SpiMode.CS_HIGH | SpiMode.LSB_FIRST;
    if ((head.mode & given) !== (this.#mode & given)) {
      throw new RangeError(`the part has mode ${this.#mode}, the guest wants ${head.mode}`);
    }
    if (output.length > BUFFER) {
      throw new RangeError(`a transfer has ${BUFFER} bytes at the most, got ${output.length}`);
    }
    spiTransfer(
      this.#fd,
      head.freq,
      direction === "receive" ? undefined : output,
      direction === "send" ? undefined : input,
    );
  }

  /** Closes it. */
  close(): void {
    close(this.#fd);
  }
}
