/**
 * userfaultfd: page faults that another process resolves (`userfaultfd(2)`, `ioctl_userfaultfd(2)`).
 *
 * @module
 */

import { arch, errno, libc } from "./deno.ts";
import { close } from "./fd.ts";
import { Native } from "./native.ts";
import { check, Errno, OsError } from "./os_error.ts";

const SYSCALL = arch === "x86_64" ? 323n : 282n;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const UFFD_API = 0xaan;
const UFFDIO_API = 0xc018aa3fn;
const UFFDIO_REGISTER = 0xc020aa00n;
const MODE_MISSING = 1n;
/** Bit of the operations that a registered range offers: _UFFDIO_COPY. */
const COPY = 3n;
const MADV_DONTNEED = 4;
const MADV_NOHUGEPAGE = 15;

const argument = new Native(32);

/**
 * A new userfaultfd with its interface agreed upon, non-blocking and closed on exec. The caller owns it.
 *
 * @throws {OsError} ENOSYS without the kernel's support, EPERM where only root may (`vm.unprivileged_userfaultfd`)
 */
export function userfaultfd(): number {
  const fd = check(
    libc.syscall(SYSCALL, BigInt(O_CLOEXEC | O_NONBLOCK), 0n, 0n, 0n, 0n, 0n),
    "userfaultfd",
    "creating it",
  );
  argument.bytes.fill(0);
  argument.set64(0, UFFD_API);
  try {
    check(libc.ioctl(fd, UFFDIO_API, argument.address), "ioctl", "agreeing on the userfaultfd interface");
  } catch (error) {
    close(fd);
    throw error;
  }
  return fd;
}

/**
 * Empties a range of memory and has every first touch of a page in it reported on the userfaultfd. Whoever touches one is
 * stopped until the page has been put there.
 *
 * @param address of the first byte, at the start of a page
 * @param byteLength whole pages
 * @throws {OsError} also when the kernel cannot put pages there (ENOTSUP)
 */
export function registerMissing(fd: number, address: bigint, byteLength: number): void {
  const length = BigInt(byteLength);
  const what = (): string => `registering ${byteLength} bytes at 0x${address.toString(16)} for page faults`;
  check(libc.madvise(address, length, MADV_DONTNEED), "madvise", what);
  // Fails where huge pages do not exist, which is as good.
  libc.madvise(address, length, MADV_NOHUGEPAGE);
  argument.set64(0, address);
  argument.set64(8, length);
  argument.set64(16, MODE_MISSING);
  argument.set64(24, 0n);
  check(libc.ioctl(fd, UFFDIO_REGISTER, argument.address), "ioctl", what);
  if (((argument.get64(24) >> COPY) & 1n) === 0n) throw new OsError("ioctl", 95, what());
}

let available: boolean | undefined;

/** Whether kernel and rights allow it; found out once. */
export function userfaultfdAvailable(): boolean {
  if (available === undefined) {
    try {
      close(userfaultfd());
      available = true;
    } catch {
      available = false;
    }
  }
  return available;
}

const EVENT_PAGEFAULT = 0x12;
const UFFDIO_COPY = 0xc028aa03n;
const message = new Native(32);
const copy = new Native(40);

/**
 * The next touch of a missing page; for the side that resolves them.
 *
 * @returns the address in the process that registered the memory, or `null` when nobody waits
 * @throws {OsError}
 */
export function nextFault(fd: number): bigint | null {
  for (;;) {
    if (libc.read(fd, message.address, 32n) !== 32) {
      const number = errno();
      if (number === Errno.EAGAIN) return null;
      throw new OsError("read", number, "reading a page fault");
    }
    if (message.bytes[0] === EVENT_PAGEFAULT) return message.get64(16);
  }
}

/**
 * Puts pages where they are missing and wakes who waits for them.
 *
 * @param target address in the process that registered the memory, at the start of a page
 * @param source address of the contents in this process
 * @param byteLength whole pages
 * @returns false when a page is there already
 * @throws {OsError}
 */
export function resolveFault(fd: number, target: bigint, source: bigint, byteLength: number): boolean {
  copy.set64(0, target);
  copy.set64(8, source);
  copy.set64(16, BigInt(byteLength));
  copy.set64(24, 0n);
  copy.set64(32, 0n);
  if (libc.ioctl(fd, UFFDIO_COPY, copy.address) === 0) return true;
  const number = errno();
  if (number === Errno.EEXIST) return false;
  throw new OsError("ioctl", number, `putting ${byteLength} bytes at 0x${target.toString(16)}`);
}
