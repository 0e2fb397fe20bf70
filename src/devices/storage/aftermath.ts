/**
 * Requests that outlive the process whose they are.
 *
 * The kernel does not wait for an io_uring when a process dies: what O_DIRECT has under way at a slow disk is carried out
 * later, maybe after the next process has carried out the same request again and others after it. A late write would undo
 * those, and a late read would write to the guest's memory. Each such request keeps its file open, though, and with it the
 * locks of the open file: by these the next process sees that something is still to come.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { markByte, markedByte, openFile, OpenFlag } from "../../../ffi/file.ts";

// Far behind the end of every file, where nobody else locks. A process has one number, and a byte by it in each range.
const NUMBERS = 2 ** 32;
/** Marked as long as the process lives. */
const LIVES = 2 ** 52;
/** Marked as long as there may be requests of the process. */
const HAS_REQUESTS = LIVES + 2 ** 33;

/** How long others that seem to live are looked at: one that is about to die lets go of its files one by one. Milliseconds. */
const GRACE = 50;

/** Tells whether requests of processes that have died are still being carried out on a file; and tells other processes so. */
export class Aftermath {
  readonly #life: number;
  readonly #requests: number;
  #since: number | undefined;

  /**
   * Marks a file. Where the file system has no locks, nothing is known, and every process seems to have ended well.
   *
   * @param requests the descriptor that requests use; it stays the caller's, who closes it before this
   * @throws {OsError} when the file cannot be opened once more
   */
  constructor(path: string, requests: number) {
    this.#life = openFile(path, OpenFlag.READ_ONLY);
    this.#requests = requests;
    const number = crypto.getRandomValues(new Uint32Array(1))[0];
    // In this order: who has requests and does not live is waited for.
    if (markByte(this.#life, LIVES + number)) markByte(requests, HAS_REQUESTS + number);
  }

  /** The numbers of others that may have requests. */
  #others(): number[] {
    const found: number[] = [];
    const ranges = [[0, NUMBERS]];
    for (let range = ranges.pop(); range !== undefined; range = ranges.pop()) {
      const [from, to] = range;
      if (from === to) continue;
      const at = markedByte(this.#requests, HAS_REQUESTS + from, to - from);
      if (at === null) continue;
      const number = at - HAS_REQUESTS;
      found.push(number);
      ranges.push([from, number], [number + 1, to]);
    }
    return found;
  }

  /** Whether nothing is to come of processes that have died. Ask again soon when it is not so. */
  get over(): boolean {
    const others = this.#others();
    const living = others.filter((number) => markedByte(this.#life, LIVES + number, 1) !== null);
    const now = performance.now();
    if (living.length < others.length) return false;
    if (living.length > 0) {
      this.#since ??= now;
      if (now - this.#since < GRACE) return false;
    }
    this.#since = undefined;
    return true;
  }

  /** Lets go of the file. */
  close(): void {
    close(this.#life);
  }
}
