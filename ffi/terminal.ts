/**
 * Terminals and pseudo-terminals (Linux `termios.h`; `ioctl_tty(2)`, `pty(7)`).
 *
 * @module
 */

import { libc } from "./deno.ts";
import { close } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { littleEndian, Native } from "./native.ts";
import { check } from "./os_error.ts";

const TCGETS = 0x5401n;
const TCSETS = 0x5402n;
const TIOCGWINSZ = 0x5413n;
const TIOCSWINSZ = 0x5414n;
const TIOCGPTN = 0x8004_5430n;
const TIOCSPTLCK = 0x4004_5431n;

// struct termios of the kernel: four words of flags, the line discipline, 19 control characters.
const TERMIOS = 36;
const INPUT_FLAGS = 0;
const OUTPUT_FLAGS = 4;
const CONTROL_FLAGS = 8;
const LOCAL_FLAGS = 12;
const CHARACTERS = 17;
const VTIME = 5;
const VMIN = 6;

/** IGNBRK, BRKINT, PARMRK, ISTRIP, INLCR, IGNCR, ICRNL, IXON. */
const COOKED_INPUT = 0x5eb;
/** OPOST. */
const COOKED_OUTPUT = 0x1;
/** ISIG, ICANON, ECHO, ECHONL, IEXTEN. */
const COOKED_LOCAL = 0x804b;
/** CSIZE and PARENB; and eight bits. */
const SIZE_AND_PARITY = 0x130;
const EIGHT_BITS = 0x30;

const room = new Native(64);

/** Whether a descriptor is a terminal. */
export function isTerminal(fd: number): boolean {
  return libc.ioctl(fd, TCGETS, room.address) === 0;
}

/**
 * Has a terminal hand on every byte as it is, both ways.
 *
 * @returns how it was, for {@link restoreTerminal}
 * @throws {OsError} ENOTTY when it is none
 */
export function makeRaw(fd: number): Uint8Array {
  check(libc.ioctl(fd, TCGETS, room.address), "ioctl", () => `asking the terminal ${fd}`);
  const before = room.bytes.slice(0, TERMIOS);
  const change = (at: number, clear: number, set = 0): void => room.set32(at, room.get32(at) & ~clear | set);
  change(INPUT_FLAGS, COOKED_INPUT);
  change(OUTPUT_FLAGS, COOKED_OUTPUT);
  change(LOCAL_FLAGS, COOKED_LOCAL);
  change(CONTROL_FLAGS, SIZE_AND_PARITY, EIGHT_BITS);
  room.bytes[CHARACTERS + VMIN] = 1;
  room.bytes[CHARACTERS + VTIME] = 0;
  check(libc.ioctl(fd, TCSETS, room.address), "ioctl", () => `setting the terminal ${fd}`);
  return before;
}

/** Sets a terminal as it was; one that is gone is not an error. */
export function restoreTerminal(fd: number, before: Uint8Array): void {
  room.bytes.set(before);
  libc.ioctl(fd, TCSETS, room.address);
}

/** Columns and rows. */
export interface TerminalSize {
  /** Characters in a row. */
  readonly columns: number;
  /** Rows. */
  readonly rows: number;
}

/** The size of a terminal, or `undefined` when it is none or has not got one. */
export function terminalSize(fd: number): TerminalSize | undefined {
  if (libc.ioctl(fd, TIOCGWINSZ, room.address) < 0) return undefined;
  const [rows, columns] = [room.view.getUint16(0, littleEndian), room.view.getUint16(2, littleEndian)];
  return rows === 0 || columns === 0 ? undefined : { columns, rows };
}

/**
 * Sets the size of a terminal.
 *
 * @throws {OsError}
 */
export function setTerminalSize(fd: number, { columns, rows }: TerminalSize): void {
  room.bytes.fill(0, 0, 8);
  room.view.setUint16(0, rows, littleEndian);
  room.view.setUint16(2, columns, littleEndian);
  check(libc.ioctl(fd, TIOCSWINSZ, room.address), "ioctl", () => `setting the size of terminal ${fd}`);
}

/** A pseudo-terminal. */
export interface Pty {
  /** Our side, non-blocking; the caller owns it. */
  readonly fd: number;
  /** The other side, for a program such as `screen`. */
  readonly path: string;
}

/**
 * Makes a pseudo-terminal that hands on every byte as it is. As long as nobody has opened the other side, reading fails with
 * EIO.
 *
 * @throws {OsError}
 */
export function openPty(): Pty {
  const fd = openFile("/dev/ptmx", OpenFlag.READ_WRITE | OpenFlag.NO_TERMINAL | OpenFlag.NONBLOCK);
  try {
    room.set32(0, 0);
    check(libc.ioctl(fd, TIOCSPTLCK, room.address), "ioctl", "unlocking a pseudo-terminal");
    check(libc.ioctl(fd, TIOCGPTN, room.address), "ioctl", "asking for the number of a pseudo-terminal");
    const path = `/dev/pts/${room.get32(0)}`;
    // That nobody is there is known only after somebody was.
    const other = openFile(path, OpenFlag.READ_WRITE | OpenFlag.NO_TERMINAL);
    makeRaw(other);
    close(other);
    return { fd, path };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Whether somebody has the other side of a pseudo-terminal open. */
export function isPtyInUse(fd: number): boolean {
  // struct pollfd: i32 descriptor, i16 events, i16 what there is; POLLHUP comes unasked.
  room.set32(0, fd);
  room.set32(4, 0);
  return libc.poll(room.address, 1n, 0) <= 0 || (room.view.getUint16(6, littleEndian) & 0x10) === 0;
}
