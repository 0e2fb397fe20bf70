/**
 * Reading and writing without waiting, whatever others have made of the descriptor: O_NONBLOCK belongs to the open file, and
 * whoever has given it away can clear it again at any time.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { RWF_NOWAIT } from "./file.ts";
import { Native } from "./native.ts";

/** At the position of the file, for those that have one. */
const HERE = -1n;
const EOPNOTSUPP = 95;

/** Memory for {@link readNow} and {@link writeNow} and how much of it is meant, laid out once: a `struct iovec`. */
export class Piece {
  /** The memory; held here, as the system knows but its address. */
  readonly memory: Native;
  /** Address of the structure. */
  readonly address: bigint;
  readonly #iovec = new Native(16);

  /** All of a piece of memory. */
  constructor(memory: Native) {
    this.memory = memory;
    this.address = this.#iovec.address;
    this.#iovec.set64(0, memory.address);
    this.byteLength = memory.bytes.length;
  }

  /** Bytes, from the first on. */
  get byteLength(): number {
    return Number(this.#iovec.get64(8));
  }

  set byteLength(byteLength: number) {
    this.#iovec.set64(8, BigInt(byteLength));
  }
}

/** What the kernel cannot do without waiting is done in the usual way. */
function unsupported(result: number): boolean {
  return result < 0 && errno() === EOPNOTSUPP;
}

/**
 * `read`, but never waits: on eventfds, pipes and sockets for certain, on others as far as O_NONBLOCK goes.
 *
 * @returns as `read`: bytes, 0 at the end, -1 with an error number (EAGAIN when there is nothing)
 */
export function readNow(fd: number, piece: Piece): number {
  const n = libc.preadv2(fd, piece.address, 1, HERE, RWF_NOWAIT);
  return unsupported(n) ? libc.readv(fd, piece.address, 1) : n;
}

/**
 * `write`, but never waits: on pipes and sockets for certain, on others as far as O_NONBLOCK goes.
 *
 * @returns as `write`: bytes, or -1 with an error number (EAGAIN when there is no room)
 */
export function writeNow(fd: number, piece: Piece): number {
  const n = libc.pwritev2(fd, piece.address, 1, HERE, RWF_NOWAIT);
  return unsupported(n) ? libc.writev(fd, piece.address, 1) : n;
}
