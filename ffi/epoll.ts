/**
 * epoll: which of many descriptors are ready.
 *
 * @module
 */

import { arch, errno, libc } from "./deno.ts";
import { check, Errno, OsError } from "./os_error.ts";
import { close } from "./fd.ts";
import { littleEndian, Native } from "./native.ts";

const EPOLL_CLOEXEC = 0o2000000;
const ADD = 1;
const DELETE = 2;
const MODIFY = 3;

/** Events of `epoll_ctl(2)`. */
export const EpollEvent = {
  IN: 1,
  OUT: 4,
  ERR: 8,
  HUP: 0x10,
  ONE_SHOT: 0x40000000,
  EDGE: 0x80000000,
} as const;

// The kernel packs struct epoll_event on x86-64 only.
const EVENT_SIZE = arch === "x86_64" ? 12 : 16;
const DATA_OFFSET = arch === "x86_64" ? 4 : 8;
const MAX_EVENTS = 64;

/** A set of descriptors to wait for. Owns its own descriptor, not those in it. */
export class Epoll {
  /** The set's own descriptor, which can itself be waited for. */
  readonly fd: number = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1", "creating a wait set");
  /** Descriptors found ready by the last {@link wait}. */
  readonly ready: number[] = new Array(MAX_EVENTS).fill(-1);
  readonly #events = new Native(MAX_EVENTS * EVENT_SIZE);

  /**
   * Adds a descriptor, level-triggered for reading by default.
   *
   * @throws {OsError} EPERM for a regular file, EEXIST when it is in the set already
   */
  add(fd: number, events: number = EpollEvent.IN): void {
    this.#control(ADD, fd, events);
  }

  /**
   * Waits for other events of a descriptor in the set; arms a one-shot anew.
   *
   * @throws {OsError} ENOENT when it is not in the set
   */
  modify(fd: number, events: number): void {
    this.#control(MODIFY, fd, events);
  }

  #control(operation: number, fd: number, events: number): void {
    this.#events.view.setUint32(0, events >>> 0, littleEndian);
    this.#events.view.setUint32(DATA_OFFSET, fd, littleEndian);
    this.#events.view.setUint32(DATA_OFFSET + 4, 0, littleEndian);
    check(
      libc.epoll_ctl(this.fd, operation, fd, this.#events.address),
      "epoll_ctl",
      () => `waiting for descriptor ${fd}`,
    );
  }

  /** Removes a descriptor; one that is not in the set is not an error. */
  delete(fd: number): void {
    libc.epoll_ctl(this.fd, DELETE, fd, this.#events.address);
  }

  /**
   * Waits, and lists the ready descriptors in {@link ready}.
   *
   * @param timeout milliseconds; 0 looks and returns, -1 waits without limit **and blocks the thread**
   * @returns how many are ready, 0 after the timeout or a signal
   * @throws {OsError}
   */
  wait(timeout: number): number {
    let n = libc.epoll_wait(this.fd, this.#events.address, MAX_EVENTS, timeout);
    if (n < 0) {
      const number = errno();
      if (number !== Errno.EINTR) throw new OsError("epoll_wait", number, "waiting for descriptors");
      // What interrupts is often what completes an operation of io_uring, which is ready then.
      n = Math.max(0, libc.epoll_wait(this.fd, this.#events.address, MAX_EVENTS, 0));
    }
    for (let i = 0; i < n; i++) {
      this.ready[i] = this.#events.view.getUint32(i * EVENT_SIZE + DATA_OFFSET, littleEndian);
    }
    return n;
  }

  /** Closes the set. */
  close(): void {
    close(this.fd);
  }
}
