/**
 * Failures of the operating system, with the name a person can look up.
 *
 * @module
 */

import { errno } from "./deno.ts";

/** Linux error numbers (asm-generic, the same on x86-64 and aarch64) by the names this toolkit meets. */
const NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  3: "ESRCH",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  25: "ENOTTY",
  26: "ETXTBSY",
  27: "EFBIG",
  28: "ENOSPC",
  29: "ESPIPE",
  30: "EROFS",
  32: "EPIPE",
  36: "ENAMETOOLONG",
  38: "ENOSYS",
  40: "ELOOP",
  61: "ENODATA",
  71: "EPROTO",
  75: "EOVERFLOW",
  77: "EBADFD",
  88: "ENOTSOCK",
  89: "EDESTADDRREQ",
  90: "EMSGSIZE",
  91: "EPROTOTYPE",
  92: "ENOPROTOOPT",
  93: "EPROTONOSUPPORT",
  94: "ESOCKTNOSUPPORT",
  95: "EOPNOTSUPP",
  97: "EAFNOSUPPORT",
  98: "EADDRINUSE",
  99: "EADDRNOTAVAIL",
  103: "ECONNABORTED",
  104: "ECONNRESET",
  105: "ENOBUFS",
  106: "EISCONN",
  107: "ENOTCONN",
  109: "ETOOMANYREFS",
  110: "ETIMEDOUT",
  111: "ECONNREFUSED",
  114: "EALREADY",
  115: "EINPROGRESS",
  121: "EREMOTEIO",
};

/** Error numbers that callers act upon. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOSPC: 28,
  EPIPE: 32,
  ENOSYS: 38,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ETOOMANYREFS: 109,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EREMOTEIO: 121,
} as const;

/** A call into the operating system that failed. */
export class OsError extends Error {
  /** The error's class name. */
  override readonly name = "OsError";
  /** The libc function that failed, such as `"mmap"`. */
  readonly call: string;
  /** The error's symbolic name, such as `"ENOMEM"`; `"E<number>"` for one without a name here. */
  readonly code: string;
  /** The error's number. */
  readonly errno: number;

  /**
   * A failed call.
   *
   * @param call the libc function
   * @param number its errno
   * @param attempted what was being done, in words that follow "while"
   */
  constructor(call: string, number: number, attempted: string) {
    const code = NAMES[number] ?? `E${number}`;
    super(`${call}: ${code} (${number}) while ${attempted}`);
    this.call = call;
    this.code = code;
    this.errno = number;
  }
}

/**
 * Passes a result on, or throws when it is negative.
 *
 * @throws {OsError}
 */
export function check(result: number, call: string, attempted: string | (() => string)): number {
  if (result < 0) {
    const number = errno();
    throw new OsError(call, number, typeof attempted === "string" ? attempted : attempted());
  }
  return result;
}
