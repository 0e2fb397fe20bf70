/**
 * SPI parts, `/dev/spidevB.C` (Linux `linux/spi/spidev.h`).
 *
 * @module
 */

import { libc } from "./deno.ts";
import { openFile, OpenFlag } from "./file.ts";
import { Native } from "./native.ts";
import { check } from "./os_error.ts";

/** Numbers of the requests. */
export const SpiIoctl = {
  MESSAGE_1: 0x4020_6b00n,
  RD_MODE32: 0x8004_6b05n,
  RD_MAX_SPEED_HZ: 0x8004_6b04n,
} as const;

/** Bytes of an `spi_ioc_transfer`. */
export const SPI_TRANSFER_SIZE = 32;

const number = new Native(4);

/**
 * Opens a part; the caller owns the descriptor.
 *
 * @throws {OsError}
 */
export function openSpiPart(path: string): number {
  return openFile(path, OpenFlag.READ_WRITE);
}

function ask(fd: number, request: bigint, what: string): number {
  check(libc.ioctl(fd, request, number.address), "ioctl", () => `asking an SPI part for its ${what}`);
  return number.get32(0) >>> 0;
}

/**
 * A part's mode bits.
 *
 * @throws {OsError} ENOTTY when it is no SPI part
 */
export function spiModeOf(fd: number): number {
  return ask(fd, SpiIoctl.RD_MODE32, "mode");
}

/**
 * A part's highest clock rate, Hz.
 *
 * @throws {OsError}
 */
export function spiSpeed(fd: number): number {
  return ask(fd, SpiIoctl.RD_MAX_SPEED_HZ, "clock rate");
}

/** Packs an `spi_ioc_transfer` and its bytes: those sent, then room for those received, in one piece of memory. */
export function packSpiTransfer(
  speed: number,
  length: number,
  output?: Uint8Array,
  receives = false,
): Native {
  const room = (output === undefined ? 0 : length) + (receives ? length : 0);
  const packed = new Native(SPI_TRANSFER_SIZE + room);
  const first = packed.address + BigInt(SPI_TRANSFER_SIZE);
  if (output !== undefined) {
    packed.set64(0, first);
    packed.bytes.set(output, SPI_TRANSFER_SIZE);
  }
  if (receives) packed.set64(8, output === undefined ? first : first + BigInt(length));
  packed.set32(16, length);
  packed.set32(20, speed);
  packed.bytes[26] = 8; // bits_per_word
  return packed;
}

/**
 * Carries out one transfer, for which the part is selected.
 *
 * @param speed Hz; 0 for the part's own
 * @param output bytes to send; absent to only receive
 * @param input is filled, with as many; absent to only send
 * @throws {OsError}
 */
export function spiTransfer(fd: number, speed: number, output?: Uint8Array, input?: Uint8Array): void {
  const length = output?.length ?? input?.length ?? 0;
  const packed = packSpiTransfer(speed, length, output, input !== undefined);
  check(libc.ioctl(fd, SpiIoctl.MESSAGE_1, packed.address), "ioctl", () => `moving ${length} bytes over SPI`);
  input?.set(packed.bytes.subarray(packed.bytes.length - length));
}
