/**
 * io_uring: file operations that do not block the thread, submitted and completed by the batch.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { close } from "./fd.ts";
import { Mapping } from "./mapping.ts";
import { littleEndian, Native } from "./native.ts";
import { Errno, OsError } from "./os_error.ts";
import { eventfd } from "./eventfd.ts";

// System call numbers are the same on x86-64 and aarch64 (Linux, include/uapi/asm-generic/unistd.h).
const SETUP = 425n;
const ENTER = 426n;
const REGISTER = 427n;
const REGISTER_EVENTFD = 4n;
const REGISTER_RESTRICTIONS = 11n;
const REGISTER_ENABLE_RINGS = 12n;
/** Bytes of struct io_uring_restriction: u16 kind, u8 operation. */
const RESTRICTION_SIZE = 16;
/** The kind that allows an operation. */
const RESTRICTION_SQE_OP = 1;

// Linux, include/uapi/linux/io_uring.h.
const SETUP_CLAMP = 1 << 4;
const SETUP_CQSIZE = 1 << 3;
const SETUP_R_DISABLED = 1 << 6;
const FEAT_SINGLE_MMAP = 1 << 0;
const FEAT_NODROP = 1 << 1;
const FEAT_SUBMIT_STABLE = 1 << 2;
const NEEDED = FEAT_SINGLE_MMAP | FEAT_NODROP | FEAT_SUBMIT_STABLE;
const CQ_EVENTFD_DISABLED = 1;
const SQ_CQ_OVERFLOW = 1 << 1;
const ENTER_GETEVENTS = 1n;
const OFFSET_SQES = 0x1000_0000;

const PARAMS_SIZE = 120;
// In struct io_uring_params.
const FLAGS = 8;
const CQ_ENTRIES = 4;
const FEATURES = 20;
const SQ_OFFSETS = 40;
const CQ_OFFSETS = 80;
// In struct io_sqring_offsets and io_cqring_offsets.
const HEAD = 0;
const TAIL = 4;
const MASK = 8;
const ENTRIES = 12;
const SQ_FLAGS = 16;
const SQ_ARRAY = 24;
const CQES = 20;
const CQ_FLAGS = 24;

const SQE_WORDS = 16;
const CQE_WORDS = 4;
const TWO_32 = 0x1_0000_0000;

const Operation = { READV: 1, WRITEV: 2, FSYNC: 3, FALLOCATE: 17, READ: 22, WRITE: 23 } as const;
const FSYNC_DATASYNC = 1;

/** Called for each operation that has completed, with its result: bytes moved, or minus an error number. */
export type OnCompletion = (token: number, result: number) => void;

function params(native: Native, structure: number, field: number): number {
  return native.view.getUint32(structure + field, littleEndian);
}

/**
 * Lets nothing through but the operations of {@link IoUring}, and starts. No filter of system calls sees an operation: without
 * this, one could open files and sockets past the sandbox.
 */
function restrict(fd: number): void {
  const allowed = Object.values(Operation);
  const list = new Native(RESTRICTION_SIZE * allowed.length);
  allowed.forEach((operation, index) => {
    list.view.setUint16(RESTRICTION_SIZE * index, RESTRICTION_SQE_OP, littleEndian);
    list.view.setUint8(RESTRICTION_SIZE * index + 2, operation);
  });
  const steps = [
    [REGISTER_RESTRICTIONS, list.address, BigInt(allowed.length)],
    [REGISTER_ENABLE_RINGS, 0n, 0n],
  ] as const;
  for (const [what, address, count] of steps) {
    if (libc.syscall(REGISTER, BigInt(fd), what, address, count, 0n, 0n) < 0) {
      throw new OsError("io_uring_register", errno(), "restricting the operations");
    }
  }
}

/**
 * One submission and one completion queue. Positions, lengths and addresses are plain numbers; tokens, which come back with
 * the result, are numbers below 2^32. Nothing is allocated for an operation.
 */
export class IoUring {
  /** Readable when something has completed, unless {@link quiet}. Belongs to the queue. */
  readonly eventFd: number;
  /** Operations that can be under way at once. */
  readonly capacity: number;
  /** Operations that have not completed, submitted or not. */
  inFlight = 0;
  /** Operations prepared and not yet handed over. */
  unsubmitted = 0;
  readonly #fd: number;
  readonly #rings: Mapping;
  readonly #entries: Mapping;
  readonly #sqHead: Uint32Array;
  readonly #sqTail: Uint32Array;
  readonly #sqFlags: Uint32Array;
  readonly #sqMask: number;
  readonly #sqSize: number;
  readonly #sqes: Uint32Array;
  readonly #cqHead: Uint32Array;
  readonly #cqTail: Uint32Array;
  readonly #cqFlags: Uint32Array;
  readonly #cqMask: number;
  readonly #cqes: Int32Array;
  readonly #fdArgument: bigint;
  /** Counts as `bigint`, so that none is made for a call. */
  readonly #counts: readonly bigint[];
  #tail: number;

  /**
   * Makes the queues.
   *
   * @param batch operations submitted in one call; a power of two
   * @param capacity operations under way at once; a power of two, at least `batch`
   * @throws {OsError} ENOSYS before Linux 5.6, EPERM where it is forbidden, ENOMEM
   */
  constructor(batch: number, capacity: number) {
    const native = new Native(PARAMS_SIZE);
    const setup = (flags: number): number => {
      native.bytes.fill(0);
      native.set32(FLAGS, SETUP_CLAMP | SETUP_CQSIZE | flags);
      native.set32(CQ_ENTRIES, capacity);
      return libc.syscall(SETUP, BigInt(batch), native.address, 0n, 0n, 0n, 0n);
    };
    let fd = setup(SETUP_R_DISABLED);
    // Linux 5.10 is the first that knows restrictions.
    const restricted = fd >= 0 || errno() !== Errno.EINVAL;
    if (!restricted) fd = setup(0);
    if (fd < 0) throw new OsError("io_uring_setup", errno(), `making queues of ${batch} operations`);
    this.#fd = fd;
    this.#fdArgument = BigInt(fd);
    const of = (structure: number, field: number): number => params(native, structure, field);
    let rings: Mapping | undefined;
    let entries: Mapping | undefined;
    let event = -1;
    try {
      if ((of(0, FEATURES) & NEEDED) !== NEEDED) {
        throw new OsError("io_uring_setup", Errno.ENOSYS, "looking for io_uring of Linux 5.6");
      }
      this.#sqSize = of(0, 0);
      this.capacity = of(0, CQ_ENTRIES);
      const sqBytes = of(SQ_OFFSETS, SQ_ARRAY) + 4 * this.#sqSize;
      const cqBytes = of(CQ_OFFSETS, CQES) + 4 * CQE_WORDS * this.capacity;
      rings = new Mapping(fd, Math.max(sqBytes, cqBytes));
      entries = new Mapping(fd, 4 * SQE_WORDS * this.#sqSize, OFFSET_SQES);
      event = eventfd();
      const number = new Native(4);
      number.set32(0, event);
      if (libc.syscall(REGISTER, BigInt(fd), REGISTER_EVENTFD, number.address, 1n, 0n, 0n) < 0) {
        throw new OsError("io_uring_register", errno(), "registering an eventfd");
      }
      if (restricted) restrict(fd);
    } catch (error) {
      rings?.unmap();
      entries?.unmap();
      if (event >= 0) close(event);
      close(fd);
      throw error;
    }
    this.#rings = rings;
    this.#entries = entries;
    this.eventFd = event;
    const { buffer } = rings;
    const word = (offset: number): Uint32Array => new Uint32Array(buffer, offset, 1);
    this.#sqHead = word(of(SQ_OFFSETS, HEAD));
    this.#sqTail = word(of(SQ_OFFSETS, TAIL));
    this.#sqFlags = word(of(SQ_OFFSETS, SQ_FLAGS));
    this.#sqMask = word(of(SQ_OFFSETS, MASK))[0];
    this.#cqHead = word(of(CQ_OFFSETS, HEAD));
    this.#cqTail = word(of(CQ_OFFSETS, TAIL));
    this.#cqFlags = word(of(CQ_OFFSETS, CQ_FLAGS));
    this.#cqMask = word(of(CQ_OFFSETS, MASK))[0];
    this.#cqes = new Int32Array(buffer, of(CQ_OFFSETS, CQES), CQE_WORDS * word(of(CQ_OFFSETS, ENTRIES))[0]);
    this.#sqes = new Uint32Array(entries.buffer);
    this.#tail = this.#sqTail[0];
    // Each entry is used where it stands, so the list of entries never changes.
    const list = new Uint32Array(buffer, of(SQ_OFFSETS, SQ_ARRAY), this.#sqSize);
    for (let i = 0; i < this.#sqSize; i++) list[i] = i;
    this.#counts = Array.from({ length: this.#sqSize + 1 }, (_, i) => BigInt(i));
  }

  /** Whether another operation finds room. */
  get full(): boolean {
    return this.inFlight >= this.capacity;
  }

  /** `pread` of `length` bytes to an address. */
  read(token: number, fd: number, address: number, length: number, position: number): void {
    this.#prepare(Operation.READ, token, fd, address, length, position, 0);
  }

  /** `pwrite` of `length` bytes from an address. */
  write(token: number, fd: number, address: number, length: number, position: number): void {
    this.#prepare(Operation.WRITE, token, fd, address, length, position, 0);
  }

  /** `preadv`. The list must stay as it is until {@link submit}. */
  readVector(token: number, fd: number, list: number, count: number, position: number): void {
    this.#prepare(Operation.READV, token, fd, list, count, position, 0);
  }

  /** `pwritev`. The list must stay as it is until {@link submit}. */
  writeVector(token: number, fd: number, list: number, count: number, position: number): void {
    this.#prepare(Operation.WRITEV, token, fd, list, count, position, 0);
  }

  /**
   * Gives the operation that was prepared last, a read or write that is not submitted yet, a list of pieces in place of its
   * own. The list must stay as it is until {@link submit}. Its address comes as two words of 32 bits, signed: as a whole it
   * would have to be allocated.
   */
  widen(listLow: number, listHigh: number, count: number): void {
    const sqes = this.#sqes;
    const at = ((this.#tail - 1) & this.#sqMask) * SQE_WORDS;
    const writes = sqes[at] === Operation.WRITE || sqes[at] === Operation.WRITEV;
    sqes[at] = writes ? Operation.WRITEV : Operation.READV;
    sqes[at + 4] = listLow;
    sqes[at + 5] = listHigh;
    sqes[at + 6] = count;
  }

  /** `fdatasync`: of what has completed when it starts. */
  syncData(token: number, fd: number): void {
    this.#prepare(Operation.FSYNC, token, fd, 0, 0, 0, FSYNC_DATASYNC);
  }

  /** `fallocate`. */
  allocate(token: number, fd: number, mode: number, position: number, length: number): void {
    this.#prepare(Operation.FALLOCATE, token, fd, length, mode, position, 0);
  }

  #prepare(
    operation: number,
    token: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    flags: number,
  ): void {
    if (this.unsubmitted === this.#sqSize) this.submit();
    const sqes = this.#sqes;
    const at = (this.#tail & this.#sqMask) * SQE_WORDS;
    const offsetHigh = Math.floor(offset / TWO_32);
    const addressHigh = Math.floor(address / TWO_32);
    sqes[at] = operation;
    sqes[at + 1] = fd;
    sqes[at + 2] = offset - offsetHigh * TWO_32;
    sqes[at + 3] = offsetHigh;
    sqes[at + 4] = address - addressHigh * TWO_32;
    sqes[at + 5] = addressHigh;
    sqes[at + 6] = length;
    sqes[at + 7] = flags;
    sqes[at + 8] = token;
    // The upper half of the token, buffers and the like: never set.
    this.#tail = (this.#tail + 1) >>> 0;
    this.unsubmitted++;
    this.inFlight++;
  }

  /**
   * Hands what was prepared to the kernel. What needs no waiting, such as reading what is in memory, is done meanwhile.
   *
   * @throws {OsError}
   */
  submit(): void {
    if (this.unsubmitted === 0) return;
    Atomics.store(this.#sqTail, 0, this.#tail);
    while (this.unsubmitted > 0) {
      const done = libc.syscall(ENTER, this.#fdArgument, this.#counts[this.unsubmitted], 0n, 0n, 0n, 0n);
      if (done >= 0) {
        this.unsubmitted -= done;
        continue;
      }
      const number = errno();
      // Out of memory for requests, or the completion queue is over-full: what has completed has to be taken first.
      if (number === Errno.EAGAIN || number === Errno.EBUSY) return;
      if (number !== Errno.EINTR) throw new OsError("io_uring_enter", number, "submitting operations");
    }
  }

  /** Whether something has completed that was not taken. */
  completed(): boolean {
    return Atomics.load(this.#cqTail, 0) !== this.#cqHead[0];
  }

  /** Takes what has completed. Returns how many there were. */
  take(onCompletion: OnCompletion): number {
    const cqes = this.#cqes;
    if ((Atomics.load(this.#sqFlags, 0) & SQ_CQ_OVERFLOW) !== 0) {
      libc.syscall(ENTER, this.#fdArgument, 0n, 0n, ENTER_GETEVENTS, 0n, 0n);
    }
    const tail = Atomics.load(this.#cqTail, 0);
    let head = this.#cqHead[0];
    let taken = 0;
    for (; head !== tail; head = (head + 1) >>> 0) {
      const at = (head & this.#cqMask) * CQE_WORDS;
      const token = cqes[at] >>> 0;
      const result = cqes[at + 2];
      // Given back first: the callback may prepare operations, or fail.
      Atomics.store(this.#cqHead, 0, (head + 1) >>> 0);
      this.inFlight--;
      taken++;
      onCompletion(token, result);
    }
    return taken;
  }

  /**
   * Waits until something has completed. **Blocks the thread.**
   *
   * @throws {OsError}
   */
  wait(): void {
    while (!this.completed()) {
      if (libc.syscall(ENTER, this.#fdArgument, 0n, 1n, ENTER_GETEVENTS, 0n, 0n) >= 0) continue;
      const number = errno();
      if (number !== Errno.EINTR) throw new OsError("io_uring_enter", number, "waiting for operations");
    }
  }

  /** Whether the eventfd is left alone: somebody looks anyway. */
  set quiet(value: boolean) {
    Atomics.store(this.#cqFlags, 0, value ? CQ_EVENTFD_DISABLED : 0);
  }

  /** Lets go of everything. Nothing may be in flight: the kernel would still write to memory. */
  close(): void {
    this.#rings.unmap();
    this.#entries.unmap();
    close(this.#fd);
    close(this.eventFd);
  }
}
