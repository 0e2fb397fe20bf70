/**
 * Surviving what a peer does to a file that is mapped here.
 *
 * Whoever has a file may make it shorter at any time, unless it is a memory file that was sealed against that. An access
 * behind its new end, or to a page for which the machine has no room (huge pages, a full `/dev/shm`), ends the process by
 * SIGBUS. To ask for the size before each access does not help: it may change in between. So the signal is caught: the
 * mapping is replaced by zeros, the access goes on there, and whoever watches over the mapping is told.
 *
 * @module
 */

import { bufferAt, errno, libc } from "./deno.ts";
import { consume, eventfd } from "./eventfd.ts";
import { close } from "./fd.ts";
import { Native } from "./native.ts";
import { check, OsError } from "./os_error.ts";
import { EpollEvent } from "./epoll.ts";
import { Reactor } from "./reactor.ts";
import { handlerCode, LITERALS } from "./sigbus_code.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

const SIGBUS = 7;
const SA_SIGINFO = 4;
const SA_ONSTACK = 0x0800_0000;
/** `struct sigaction` of glibc, 64 bits: handler, mask of 128 bytes, flags. */
const SIGACTION_SIZE = 152;
const SIGACTION_FLAGS = 136;

/** Mappings of this thread that can be watched over at a time: half of those that Linux lets a process have. */
const MOST_ENTRIES = 32768;

// The table that the handler reads, in 64-bit words: how many entries are in use and, in the upper half, the event to ring;
// a 1 to ring with; the handler to go on to; then from word 4 on, for each entry, start, end (0 for none) and whether it was hit.
const HEADER = 4;
const ONE = 1;
const OLD = 2;
const ENTRY = 4;
const START = 0;
const END = 1;
const HIT = 2;

function anonymous(byteLength: number): bigint {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const address = libc.mmap(0n, BigInt(byteLength), PROT_READ | PROT_WRITE, flags, -1, 0n);
  if (address === -1n) throw new OsError("mmap", errno(), `allocating ${byteLength} bytes`);
  return BigInt.asUintN(64, address);
}

/**
 * Puts a handler before the one that there is. It stays, with its table, until the process ends: handlers that came later go
 * on to it, also when the thread that has installed it is gone.
 *
 * Threads do this at the same time, and know nothing of each other. So what comes next is what the kernel says was replaced,
 * written down afterwards: whoever looks first and installs then loses a handler that came in between.
 *
 * @throws {OsError}
 */
function install(table: bigint, words: BigInt64Array): void {
  const code = handlerCode();
  const address = anonymous(code.length);
  const memory = bufferAt(address, code.length);
  new Uint8Array(memory).set(code);
  new DataView(memory, code.length - LITERALS).setBigUint64(0, table, true);
  // The kernel makes what was written visible to the processor's instruction fetch when it makes a page executable.
  check(
    libc.mprotect(address, BigInt(code.length), PROT_READ | PROT_EXEC),
    "mprotect",
    () => "making the handler of SIGBUS executable",
  );
  const [action, old] = [new Native(SIGACTION_SIZE), new Native(SIGACTION_SIZE)];
  check(libc.sigaction(SIGBUS, 0n, old.address), "sigaction", () => "looking at SIGBUS");
  Atomics.store(words, OLD, old.get64(0));
  action.set64(0, address);
  action.set32(SIGACTION_FLAGS, SA_SIGINFO | SA_ONSTACK);
  check(libc.sigaction(SIGBUS, action.address, old.address), "sigaction", () => "catching SIGBUS");
  Atomics.store(words, OLD, old.get64(0));
}

/** What this thread watches over. Each has its own table and event; the handlers go on to each other. */
class Watch {
  readonly #counts: Int32Array;
  readonly #words: BigInt64Array;
  readonly #callbacks = new Map<number, () => void>();
  readonly #free: number[] = [];
  #used = 0;

  /** @throws {OsError} when SIGBUS cannot be caught */
  constructor() {
    const bytes = 8 * (HEADER + ENTRY * MOST_ENTRIES);
    const address = anonymous(bytes);
    const memory = bufferAt(address, bytes);
    this.#counts = new Int32Array(memory, 0, 2);
    this.#words = new BigInt64Array(memory);
    this.#words[ONE] = 1n;
    install(address, this.#words);
  }

  add(address: bigint, byteLength: number, onLost: () => void): () => void {
    const entry = this.#free.pop() ?? this.#used;
    if (entry === MOST_ENTRIES) throw new RangeError(`at most ${MOST_ENTRIES} mappings can be watched over`);
    if (this.#callbacks.size === 0) this.#open();
    this.#callbacks.set(entry, onLost);
    const at = HEADER + ENTRY * entry;
    // An entry without an end counts for nothing, so the end comes last.
    Atomics.store(this.#words, at + HIT, 0n);
    Atomics.store(this.#words, at + START, address);
    Atomics.store(this.#words, at + END, address + BigInt(byteLength));
    if (entry === this.#used) Atomics.store(this.#counts, 0, ++this.#used);
    return () => this.#remove(entry);
  }

  #remove(entry: number): void {
    if (!this.#callbacks.delete(entry)) return;
    Atomics.store(this.#words, HEADER + ENTRY * entry + END, 0n);
    this.#free.push(entry);
    if (this.#callbacks.size === 0) this.#close();
  }

  #open(): void {
    const event = eventfd();
    this.#counts[1] = event;
    Reactor.shared().watch(
      event,
      () => {
        consume(event);
        this.#tell();
      },
      EpollEvent.IN,
      true,
    );
  }

  #close(): void {
    const event = this.#counts[1];
    this.#counts[1] = -1;
    Reactor.shared().unwatch(event);
    close(event);
  }

  #tell(): void {
    for (const [entry, onLost] of [...this.#callbacks]) {
      if (Atomics.exchange(this.#words, HEADER + ENTRY * entry + HIT, 0n) === 1n) onLost();
    }
  }
}

let watch: Watch | undefined;

/**
 * Watches over a mapping. When an access to it fails, in whatever thread, all of it is replaced by zeros that nobody shares,
 * the access goes on, and `onLost` is called as soon as the reactor gets its turn.
 *
 * @param address of the first byte, as mapped
 * @param byteLength bytes, as mapped
 * @param onLost called once
 * @returns ends it; to be called before the memory is unmapped
 * @throws {OsError} when the signal cannot be caught, as where no memory may be made executable
 */
export function watchMapping(address: bigint, byteLength: number, onLost: () => void): () => void {
  watch ??= new Watch();
  return watch.add(address, byteLength, onLost);
}
