/**
 * GPIO character devices, `/dev/gpiochipN` (Linux `linux/gpio.h`, version 2 of the interface).
 *
 * @module
 */

import { libc } from "./deno.ts";
import { close, readBytes, setNonblocking } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { Native } from "./native.ts";
import { check } from "./os_error.ts";

/** Numbers of the requests. */
export const GpioIoctl = {
  GET_CHIPINFO: 0x8044_b401n,
  GET_LINEINFO: 0xc100_b405n,
  GET_LINE: 0xc250_b407n,
  LINE_SET_CONFIG: 0xc110_b40dn,
  LINE_GET_VALUES: 0xc010_b40en,
  LINE_SET_VALUES: 0xc010_b40fn,
} as const;

/** Bits of a line's flags. */
export const GpioLineFlag = { INPUT: 4, OUTPUT: 8, EDGE_RISING: 16, EDGE_FALLING: 32 } as const;

/** Bytes of `gpiochip_info`, `gpio_v2_line_info`, `gpio_v2_line_config`, `gpio_v2_line_request`, `gpio_v2_line_event`. */
export const GpioSize = {
  CHIP_INFO: 68,
  LINE_INFO: 256,
  LINE_CONFIG: 272,
  LINE_REQUEST: 592,
  LINE_EVENT: 48,
} as const;

const NAME = 32;
const CONSUMER = new TextEncoder().encode("vhost-user");
const ATTR_OUTPUT_VALUES = 2;

const info = new Native(GpioSize.LINE_INFO);
const request = new Native(GpioSize.LINE_REQUEST);
const values = new Native(16);

/** Packs a `gpio_v2_line_config` for one line at a byte offset of zeroed memory. */
export function packLineConfig(target: Native, offset: number, flags: number, value: 0 | 1): void {
  target.set64(offset, BigInt(flags));
  if ((flags & GpioLineFlag.OUTPUT) === 0) return;
  target.set32(offset + 8, 1); // num_attrs
  target.set32(offset + 32, ATTR_OUTPUT_VALUES);
  target.set64(offset + 40, BigInt(value));
  target.set64(offset + 48, 1n); // mask: the one line
}

/** Packs a `gpio_v2_line_request` for one line. Returns memory that the next call uses again. */
export function packLineRequest(line: number, flags: number, value: 0 | 1): Native {
  request.bytes.fill(0);
  request.set32(0, line);
  request.bytes.set(CONSUMER, 256);
  packLineConfig(request, 256 + NAME, flags, value);
  request.set32(560, 1); // num_lines
  return request;
}

function text(native: Native, offset: number): string {
  const bytes = native.bytes.subarray(offset, offset + NAME);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? NAME : end));
}

/**
 * Opens a chip; the caller owns the descriptor.
 *
 * @throws {OsError}
 */
export function openGpioChip(path: string): number {
  return openFile(path, OpenFlag.READ_WRITE);
}

/**
 * The names of a chip's lines.
 *
 * @throws {OsError} ENOTTY when it is no GPIO chip
 */
export function gpioLineNames(chip: number): string[] {
  info.bytes.fill(0);
  check(libc.ioctl(chip, GpioIoctl.GET_CHIPINFO, info.address), "ioctl", "asking a GPIO chip for its lines");
  const count = info.get32(64);
  return Array.from({ length: count }, (_, line) => {
    info.bytes.fill(0);
    info.set32(64, line);
    check(
      libc.ioctl(chip, GpioIoctl.GET_LINEINFO, info.address),
      "ioctl",
      () => `asking for GPIO line ${line}`,
    );
    return text(info, 0);
  });
}

/**
 * Takes a line into use.
 *
 * @param flags of {@link GpioLineFlag}
 * @param value level of an output
 * @returns a descriptor of the caller's that does not block: edges are read from it, and closing it gives the line up
 * @throws {OsError} EBUSY when the kernel or another program has it
 */
export function requestGpioLine(chip: number, line: number, flags: number, value: 0 | 1): number {
  const packed = packLineRequest(line, flags, value);
  check(libc.ioctl(chip, GpioIoctl.GET_LINE, packed.address), "ioctl", () => `taking GPIO line ${line}`);
  const fd = packed.get32(588);
  try {
    setNonblocking(fd);
  } catch (error) {
    close(fd);
    throw error;
  }
  return fd;
}

/**
 * Changes the use of a line.
 *
 * @throws {OsError}
 */
export function configureGpioLine(fd: number, flags: number, value: 0 | 1): void {
  request.bytes.fill(0);
  packLineConfig(request, 0, flags, value);
  check(libc.ioctl(fd, GpioIoctl.LINE_SET_CONFIG, request.address), "ioctl", "configuring a GPIO line");
}

/**
 * The level of a line.
 *
 * @throws {OsError}
 */
export function gpioLineValue(fd: number): 0 | 1 {
  values.set64(0, 0n);
  values.set64(8, 1n);
  check(libc.ioctl(fd, GpioIoctl.LINE_GET_VALUES, values.address), "ioctl", "reading a GPIO line");
  return (values.get64(0) & 1n) === 1n ? 1 : 0;
}

/**
 * Sets the level of an output.
 *
 * @throws {OsError}
 */
export function setGpioLineValue(fd: number, value: 0 | 1): void {
  values.set64(0, BigInt(value));
  values.set64(8, 1n);
  check(libc.ioctl(fd, GpioIoctl.LINE_SET_VALUES, values.address), "ioctl", "setting a GPIO line");
}

/** The level after each edge in what was read from a line: `gpio_v2_line_event` after another. */
export function edgesOf(events: Uint8Array): (0 | 1)[] {
  const view = new DataView(events.buffer, events.byteOffset, events.byteLength);
  const count = Math.floor(events.length / GpioSize.LINE_EVENT);
  return Array.from(
    { length: count },
    (_, i) => view.getUint32(i * GpioSize.LINE_EVENT + 8, true) === 1 ? 1 : 0,
  );
}

/**
 * The level after each edge since the last call; none when nothing has happened.
 *
 * @throws {OsError}
 */
export function readGpioEdges(fd: number): (0 | 1)[] {
  const bytes = readBytes(fd, 16 * GpioSize.LINE_EVENT);
  return bytes === null ? [] : edgesOf(bytes);
}
