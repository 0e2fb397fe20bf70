/**
 * Shared memory: memory files and mappings of files as buffers.
 *
 * @module
 */

import { bufferAt, errno, libc } from "./deno.ts";
import { check, OsError } from "./os_error.ts";
import { close } from "./fd.ts";
import { Native } from "./native.ts";
import { watchMapping } from "./sigbus.ts";

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/** Mapped memory, as those use it who need not know who has mapped it. */
export interface MappedMemory {
  /** The memory. Detached (length 0) once {@link unmap} has been called. */
  readonly buffer: ArrayBuffer;
  /** Address of the first byte in this process. */
  readonly address: bigint;
  /** Bytes. */
  readonly byteLength: number;
  /**
   * Survives what a peer does to the file: when it is too short for an access, the memory is replaced by zeros and `onLost`
   * is called, once.
   *
   * @throws {OsError}
   */
  watch(onLost: () => void): void;
  /** Lets go of it: every view that anyone kept has length 0 from here on. */
  unmap(): void;
}

/** A file, or part of one, mapped into this process and shared with whoever else maps it. */
export class Mapping implements MappedMemory {
  /** The memory. Detached (length 0) once {@link unmap} has been called. */
  readonly buffer: ArrayBuffer;
  /** Address of the first byte in this process. */
  readonly address: bigint;
  /** Bytes mapped. */
  readonly byteLength: number;
  #mapped = true;
  #unwatch: (() => void) | undefined;

  /**
   * @param fd the file; may be closed afterwards, the mapping stays
   * @param byteLength bytes, a multiple of the file's page size
   * @param offset of the first byte in the file, a multiple of the file's page size
   * @param accessible false maps it without any access, until {@link allowAccess}
   * @throws {OsError}
   */
  constructor(fd: number, byteLength: number, offset = 0, accessible = true) {
    const address = libc.mmap(
      0n,
      BigInt(byteLength),
      accessible ? PROT_READ | PROT_WRITE : PROT_NONE,
      MAP_SHARED | MAP_NORESERVE,
      fd,
      BigInt(offset),
    );
    if (address === -1n) {
      throw new OsError("mmap", errno(), `mapping ${byteLength} bytes at ${offset} of descriptor ${fd}`);
    }
    this.address = BigInt.asUintN(64, address);
    this.byteLength = byteLength;
    this.buffer = bufferAt(this.address, byteLength);
  }

  watch(onLost: () => void): void {
    if (this.#mapped) this.#unwatch ??= watchMapping(this.address, this.byteLength, onLost);
  }

  /**
   * Unmaps. The buffer is detached first: every view that anyone kept has length 0 from here on, and a
   * late access reads `undefined` instead of ending the process with SIGSEGV.
   */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.buffer.transfer(0);
    this.#unwatch?.();
    libc.munmap(this.address, BigInt(this.byteLength));
  }
}

/** Memory that another thread of this process has mapped, and keeps mapped until it was told that this has let go. */
export class MappingView implements MappedMemory {
  readonly buffer: ArrayBuffer;
  readonly address: bigint;
  readonly byteLength: number;
  readonly #onRelease: () => void;
  #held = true;

  /**
   * @param address of the first byte, as {@link Mapping.address} says
   * @param onRelease called when nothing here uses the memory any more
   */
  constructor(address: bigint, byteLength: number, onRelease: () => void) {
    this.address = address;
    this.byteLength = byteLength;
    this.buffer = bufferAt(address, byteLength);
    this.#onRelease = onRelease;
  }

  /** Whoever has mapped it watches. */
  watch(): void {}

  unmap(): void {
    if (!this.#held) return;
    this.#held = false;
    this.buffer.transfer(0);
    this.#onRelease();
  }
}

/**
 * Allows reading and writing of memory that was mapped without.
 *
 * @throws {OsError}
 */
export function allowAccess(address: bigint, byteLength: number): void {
  check(
    libc.mprotect(address, BigInt(byteLength), PROT_READ | PROT_WRITE),
    "mprotect",
    () => `opening ${byteLength} bytes at 0x${address.toString(16)}`,
  );
}

/** Some pages of a shared mapping. */
export interface Pages {
  /** Address of the first byte, at the start of a page. */
  readonly address: bigint;
  /** Whole pages, bytes. */
  readonly byteLength: number;
}

/**
 * Pages of shared mappings a second time, one after the other: scattered memory that reads as one. The pages stay shared
 * with their first place, also when that is unmapped.
 */
export class Collage {
  /** The memory. Detached (length 0) once {@link unmap} has been called. */
  readonly buffer: ArrayBuffer;
  readonly #address: bigint;
  readonly #byteLength: number;
  #unwatch: (() => void) | undefined;

  /**
   * Puts pages in a row.
   *
   * @throws {OsError} EINVAL for pages of a private mapping
   */
  constructor(pieces: readonly Pages[]) {
    this.#byteLength = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const address = libc.mmap(0n, BigInt(this.#byteLength), PROT_NONE, flags, -1, 0n);
    if (address === -1n) {
      throw new OsError("mmap", errno(), `reserving ${this.#byteLength} bytes of addresses`);
    }
    this.#address = BigInt.asUintN(64, address);
    let at = this.#address;
    for (const piece of pieces) {
      // With an old size of 0, mremap leaves the old mapping in place and makes a second one of the same pages.
      const length = BigInt(piece.byteLength);
      if (libc.mremap(piece.address, 0n, length, MREMAP_MAYMOVE | MREMAP_FIXED, at) === -1n) {
        const number = errno();
        libc.munmap(this.#address, BigInt(this.#byteLength));
        throw new OsError("mremap", number, `mapping ${piece.byteLength} bytes a second time`);
      }
      at += length;
    }
    this.buffer = bufferAt(this.#address, this.#byteLength);
  }

  /**
   * {@link Mapping.watch}.
   *
   * @throws {OsError}
   */
  watch(onLost: () => void): void {
    this.#unwatch ??= watchMapping(this.#address, this.#byteLength, onLost);
  }

  /** Unmaps; views of the buffer become empty first. */
  unmap(): void {
    if (this.buffer.byteLength === 0) return;
    this.buffer.transfer(0);
    this.#unwatch?.();
    libc.munmap(this.#address, BigInt(this.#byteLength));
  }
}

/**
 * A memory file (`memfd_create`) of a given size, closed on exec. The caller owns the descriptor.
 *
 * @param name shown in `/proc/self/fd`, for people
 * @param byteLength bytes, zeroed
 * @throws {OsError}
 */
export function memoryFile(name: string, byteLength: number): number {
  const fd = check(
    libc.memfd_create(Native.string(name).address, MFD_CLOEXEC | MFD_ALLOW_SEALING),
    "memfd_create",
    () => `creating the memory file ${name}`,
  );
  try {
    resizeFile(fd, byteLength);
  } catch (error) {
    close(fd);
    throw error;
  }
  return fd;
}

/**
 * `ftruncate`.
 *
 * @throws {OsError}
 */
export function resizeFile(fd: number, byteLength: number): void {
  check(
    libc.ftruncate(fd, BigInt(byteLength)),
    "ftruncate",
    () => `setting the size of descriptor ${fd} to ${byteLength} bytes`,
  );
}
