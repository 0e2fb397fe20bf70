/**
 * A flash memory.
 *
 * @module
 */

import type { SpiDirection, SpiPart } from "./bus.ts";

/** Commands (JESD216 and the data sheets of the 25-series). */
const Command = {
  WRITE_STATUS: 0x01,
  PAGE_PROGRAM: 0x02,
  READ: 0x03,
  WRITE_DISABLE: 0x04,
  READ_STATUS: 0x05,
  WRITE_ENABLE: 0x06,
  FAST_READ: 0x0b,
  SECTOR_ERASE: 0x20,
  BLOCK_ERASE_32K: 0x52,
  READ_SFDP: 0x5a,
  CHIP_ERASE_60: 0x60,
  RESET_ENABLE: 0x66,
  RESET: 0x99,
  READ_ID: 0x9f,
  BLOCK_ERASE_64K: 0xd8,
  CHIP_ERASE: 0xc7,
} as const;

const PAGE = 256;
const SECTOR = 4096;
/** Bit of the status: writing is enabled. */
const WEL = 2;
/** The maker in the identity: Winbond. */
const MAKER = 0xef;
/** Sizes, as powers of two, of the W25X family; the others are of the W25Q family. */
const W25X: readonly number[] = [16, 17, 19];

/** Bytes that a command erases. */
const ERASES: Readonly<Record<number, number>> = {
  [Command.SECTOR_ERASE]: SECTOR,
  [Command.BLOCK_ERASE_32K]: 32768,
  [Command.BLOCK_ERASE_64K]: 65536,
};

/** Address bytes and dummy bytes behind a command; none of both for those that are not here. */
const OPERANDS: Readonly<Record<number, readonly [address: number, dummy: number]>> = {
  [Command.PAGE_PROGRAM]: [3, 0],
  [Command.READ]: [3, 0],
  [Command.FAST_READ]: [3, 1],
  [Command.READ_SFDP]: [3, 1],
  [Command.SECTOR_ERASE]: [3, 0],
  [Command.BLOCK_ERASE_32K]: [3, 0],
  [Command.BLOCK_ERASE_64K]: [3, 0],
};

/** Commands that go on with bytes for as long as the part is selected. */
const WITH_DATA: readonly number[] = [
  Command.PAGE_PROGRAM,
  Command.READ,
  Command.FAST_READ,
  Command.READ_SFDP,
  Command.READ_STATUS,
  Command.READ_ID,
  Command.WRITE_STATUS,
];

/** What a flash is made of. */
export interface SpiFlashOptions {
  /** Bytes: a power of two from 64 KiB to 16 MiB; 1 MiB by default. Ignored with {@link data}. */
  readonly size?: number;
  /** What is in it; stays the caller's, and changes as the guest writes. 0xff by default, as in a new one. */
  readonly data?: Uint8Array;
  /** Called after the guest has written or erased: bytes from `offset` on. */
  readonly onWrite?: (offset: number, length: number) => void;
}

/**
 * A NOR flash of the 25-series with the identity of one of Winbond's: identity, status, read, page program, erase by 4, 32 and
 * 64 KiB and as a whole. Programming only clears bits; programming and erasing take no time.
 *
 * A request of virtio does not say that it is the last of a message, and Linux's driver does not have a part deselected at
 * the end of one. So a command also ends with the transfer that carries its last piece: the data, or what stands before
 * where there is none. Whoever reads on over several transfers gets the first only.
 */
export class SpiFlash implements SpiPart {
  /** What is in it. */
  readonly data: Uint8Array;
  readonly #onWrite: (offset: number, length: number) => void;
  readonly #identity: readonly number[];
  /** The command that is under way; -1 for none. */
  #command = -1;
  #operands = 0;
  #address = 0;
  /** Data bytes that the command has had. */
  #count = 0;
  #enabled = false;
  #resetEnabled = false;
  readonly #page = new Uint8Array(PAGE);
  readonly #touched = new Uint8Array(PAGE);

  /**
   * Makes one.
   *
   * @throws {RangeError} for a size that cannot be
   */
  constructor(options: SpiFlashOptions = {}) {
    const data = options.data ?? new Uint8Array(options.size ?? 1 << 20).fill(0xff);
    const bits = Math.log2(data.length);
    if (!Number.isInteger(bits) || bits < 16 || bits > 24) {
      throw new RangeError(`a flash has a power of two of bytes, 65536 to 16777216; got ${data.length}`);
    }
    this.data = data;
    this.#identity = [MAKER, W25X.includes(bits) ? 0x30 : 0x40, bits];
    this.#onWrite = options.onWrite ?? (() => {});
  }

  /** {@link SpiPart.transfer}. */
  transfer(output: Uint8Array, input: Uint8Array, _direction: SpiDirection): void {
    for (let i = 0; i < output.length; i++) input[i] = this.#clock(output[i]);
    if (this.#command >= 0 && this.#complete) this.deselect();
  }

  /** Whether the command has all of its pieces. */
  get #complete(): boolean {
    return this.#operands === 0 && (this.#count > 0 || !WITH_DATA.includes(this.#command));
  }

  /** {@link SpiPart.deselect}: a command takes effect then, and one that is not complete has none. */
  deselect(): void {
    const command = this.#command;
    const complete = this.#complete;
    this.#command = -1;
    if (command < 0 || !complete) return;
    const reset = this.#resetEnabled;
    this.#resetEnabled = command === Command.RESET_ENABLE;
    if (command === Command.WRITE_ENABLE) this.#enabled = true;
    else if (command === Command.WRITE_DISABLE || (command === Command.RESET && reset)) this.#enabled = false;
    else if (this.#enabled) this.#write(command);
  }

  #write(command: number): void {
    if (command === Command.PAGE_PROGRAM) this.#program();
    else if (command === Command.CHIP_ERASE || command === Command.CHIP_ERASE_60) {
      this.#erase(0, this.data.length);
    } else if (command in ERASES) this.#erase(this.#address & ~(ERASES[command] - 1), ERASES[command]);
    // There is nothing in the status that can be set.
    else if (command !== Command.WRITE_STATUS) return;
    this.#enabled = false;
  }

  #erase(at: number, length: number): void {
    this.data.fill(0xff, at, at + length);
    this.#onWrite(at, length);
  }

  #program(): void {
    const page = this.#address & ~(PAGE - 1);
    for (let i = 0; i < PAGE; i++) {
      if (this.#touched[i] !== 0) this.data[page + i] &= this.#page[i];
    }
    this.#onWrite(page, PAGE);
  }

  /** One byte in, one byte out. */
  #clock(byte: number): number {
    if (this.#command < 0) {
      this.#command = byte;
      const [address, dummy] = OPERANDS[byte] ?? [0, 0];
      this.#operands = address + dummy;
      this.#address = this.#count = 0;
      this.#touched.fill(0);
      return 0;
    }
    if (this.#operands > 0) {
      const [, dummy] = OPERANDS[this.#command];
      if (this.#operands-- > dummy) this.#address = (this.#address << 8 | byte) & this.data.length - 1;
      return 0;
    }
    const at = this.#count++;
    switch (this.#command) {
      case Command.READ:
      case Command.FAST_READ:
        return this.data[this.#address + at & this.data.length - 1];
      case Command.READ_ID:
        return this.#identity[at % 3];
      case Command.READ_SFDP:
        // There is no description of it.
        return 0xff;
      case Command.READ_STATUS:
        return this.#enabled ? WEL : 0;
      case Command.PAGE_PROGRAM: {
        // More than a page: the last of them count.
        const place = this.#address + at & PAGE - 1;
        this.#page[place] = byte;
        this.#touched[place] = 1;
        return 0;
      }
      default:
        return 0;
    }
  }
}
