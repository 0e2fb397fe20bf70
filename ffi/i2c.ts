/**
 * I²C buses, `/dev/i2c-N` (Linux `linux/i2c-dev.h`).
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { close } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { Native } from "./native.ts";
import { check, Errno, OsError } from "./os_error.ts";

/** Numbers of the requests, the most messages of one, and flags of a message. */
export const I2cIoctl = {
  FUNCS: 0x0705,
  RDWR: 0x0707,
  MAX_MESSAGES: 42,
  M_RD: 0x0001,
  M_TEN: 0x0010,
} as const;

const I2C_FUNC_I2C = 1n;
const RDWR = BigInt(I2cIoctl.RDWR);
/** Bytes of an `i2c_msg`: u16 addr, u16 flags, u16 len, and from 8 on the address of the data. */
const MESSAGE = 16;
/** The most bytes of a message that the kernel takes. */
const MAX_LENGTH = 8192;
/** What adapters say when a part does not answer, or another master was faster. */
const SILENCE: readonly number[] = [
  Errno.ENXIO,
  Errno.EIO,
  Errno.EREMOTEIO,
  Errno.ETIMEDOUT,
  Errno.EAGAIN,
];

/** One message of a transaction. */
export interface I2cMessage {
  /** Address, 7 or 10 bits. */
  readonly address: number;
  /** Whether the address has 10 bits. */
  readonly tenBit: boolean;
  /** Whether bytes come from the part. */
  readonly reads: boolean;
  /** The bytes, or room for them. */
  readonly data: Uint8Array;
}

/**
 * Opens a bus; the caller owns the descriptor.
 *
 * @throws {OsError} ENOTTY when it is no bus
 * @throws {Error} when the adapter has no plain transactions
 */
export function openI2cBus(path: string): number {
  const fd = openFile(path, OpenFlag.READ_WRITE);
  try {
    const functions = new Native(8);
    check(
      libc.ioctl(fd, BigInt(I2cIoctl.FUNCS), functions.address),
      "ioctl",
      () => `asking ${path} what it can do`,
    );
    if ((functions.get64(0) & I2C_FUNC_I2C) === 0n) {
      throw new Error(
        `${path}: the adapter has no plain I2C transactions (I2C_FUNC_I2C), only those of SMBus`,
      );
    }
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Packs a transaction: the `i2c_rdwr_ioctl_data`, its messages and their data, in one piece of memory. */
export function packI2cTransfer(messages: readonly I2cMessage[]): Native {
  const size = messages.reduce((sum, { data }) => sum + data.length, 0);
  const packed = new Native(16 + messages.length * MESSAGE + size);
  packed.set64(0, packed.address + 16n);
  packed.set32(8, messages.length);
  let at = 16 + messages.length * MESSAGE;
  messages.forEach(({ address, tenBit, reads, data }, i) => {
    const message = 16 + i * MESSAGE;
    packed.set32(message, address | ((reads ? I2cIoctl.M_RD : 0) | (tenBit ? I2cIoctl.M_TEN : 0)) << 16);
    packed.set32(message + 4, data.length);
    packed.set64(message + 8, packed.address + BigInt(at));
    if (!reads) packed.bytes.set(data, at);
    at += data.length;
  });
  return packed;
}

/**
 * Carries out a transaction; fills the data of what is read.
 *
 * @returns how many messages have succeeded: all, or none when a part does not answer
 * @throws {OsError} for what is not the part's doing
 */
export function i2cTransfer(fd: number, messages: readonly I2cMessage[]): number {
  if (messages.length > I2cIoctl.MAX_MESSAGES || messages.some(({ data }) => data.length > MAX_LENGTH)) {
    return 0;
  }
  const packed = packI2cTransfer(messages);
  const done = libc.ioctl(fd, RDWR, packed.address);
  if (done < 0) {
    const number = errno();
    if (SILENCE.includes(number)) return 0;
    throw new OsError("ioctl", number, "carrying out an I2C transaction");
  }
  let at = 16 + messages.length * MESSAGE;
  for (const { reads, data } of messages) {
    if (reads) data.set(packed.bytes.subarray(at, at + data.length));
    at += data.length;
  }
  return done;
}
