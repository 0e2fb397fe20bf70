/**
 * The libc functions this toolkit calls, as data: one opening of libc per runtime turns the table
 * into callable functions (`deno.ts`, and `node.ts` by koffi).
 *
 * Pointers and sizes are `u64`/`i64` and travel as `bigint`: a pointer parameter of its own kind would
 * cost an object per call, and a `number` for a 64-bit parameter leaves the fast path of the engine.
 * A result that always fits in 31 bits (a descriptor, a count of bytes, of which Linux moves less than 2^31 a call) is
 * `i32`: a `bigint` for each call would be garbage for each request.
 *
 * @module
 */

/** How one parameter or result crosses into C. */
export type NativeType = "i32" | "u32" | "i64" | "u64" | "void";

/** Name → parameters and result. */
export const symbols = {
  __errno_location: { parameters: [], result: "u64" },
  accept4: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  bind: { parameters: ["i32", "u64", "u32"], result: "i32" },
  clock_gettime: { parameters: ["i32", "u64"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "u64", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "u64"], result: "i32" },
  epoll_wait: { parameters: ["i32", "u64", "i32", "i32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  getenv: { parameters: ["u64"], result: "u64" },
  getpwnam: { parameters: ["u64"], result: "u64" },
  getsockopt: { parameters: ["i32", "i32", "i32", "u64", "u64"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "u64"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" },
  memfd_create: { parameters: ["u64", "u32"], result: "i32" },
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "i64" },
  mprotect: { parameters: ["u64", "u64", "i32"], result: "i32" },
  mremap: { parameters: ["u64", "u64", "u64", "i32", "u64"], result: "i64" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  open: { parameters: ["u64", "i32", "u32"], result: "i32" },
  pipe2: { parameters: ["u64", "i32"], result: "i32" },
  poll: { parameters: ["u64", "u64", "i32"], result: "i32" },
  preadv: { parameters: ["i32", "u64", "i32", "i64"], result: "i32" },
  preadv2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  pwritev: { parameters: ["i32", "u64", "i32", "i64"], result: "i32" },
  pwritev2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  read: { parameters: ["i32", "u64", "u64"], result: "i32" },
  readlink: { parameters: ["u64", "u64", "u64"], result: "i32" },
  recvmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "u64", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  sigaction: { parameters: ["i32", "u64", "u64"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "u64"], result: "i32" },
  statx: { parameters: ["i32", "u64", "i32", "u32", "u64"], result: "i32" },
  strlen: { parameters: ["u64"], result: "u64" },
  syscall: { parameters: ["i64", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  umask: { parameters: ["u32"], result: "u32" },
  unlink: { parameters: ["u64"], result: "i32" },
  write: { parameters: ["i32", "u64", "u64"], result: "i32" },
  writev: { parameters: ["i32", "u64", "i32"], result: "i32" },
} as const;

type Parameter<T> = T extends "i64" | "u64" ? bigint : number;
type Parameters<T extends readonly unknown[]> = { -readonly [K in keyof T]: Parameter<T[K]> };
type Result<T> = T extends "void" ? void : Parameter<T>;

/** The table as functions. */
export type Libc = {
  readonly [K in keyof typeof symbols]: (
    ...args: Parameters<(typeof symbols)[K]["parameters"]>
  ) => Result<(typeof symbols)[K]["result"]>;
};
