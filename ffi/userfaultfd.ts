/**
 * userfaultfd: page faults that another process resolves (`userfaultfd(2)`, `ioctl_userfaultfd(2)`).
 *
 * @module
 */

import { arch, libc } from "./deno.ts";
import { close } from "./fd.ts";
import { Native } from "./native.ts";
import { check, OsError } from "./os_error.ts";

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
    Number(libc.syscall(SYSCALL, BigInt(O_CLOEXEC | O_NONBLOCK))),
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
