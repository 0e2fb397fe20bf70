/**
 * TAP devices: network interfaces whose wire is a descriptor (Linux, Documentation/networking/tuntap.rst).
 *
 * @module
 */

import { libc } from "./deno.ts";
import { close, setNonblocking } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { Native } from "./native.ts";
import { check } from "./os_error.ts";

const TUNSETIFF = 0x4004_54can;
const TUNSETOFFLOAD = 0x4004_54d0n;
const TUNGETIFF = 0x8004_54d2n;
const TUNSETVNETHDRSZ = 0x4004_54d8n;
const TUNSETQUEUE = 0x4004_54d9n;

const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_ATTACH_QUEUE = 0x0200;
const IFF_DETACH_QUEUE = 0x0400;

/** The longest name of an interface, bytes. */
export const MAX_INTERFACE_NAME = 15;

/** What the reader of a TAP device can take unfinished. */
export const TapOffload = { CSUM: 1, TSO4: 2, TSO6: 4, TSO_ECN: 8 } as const;

// struct ifreq: 16 bytes of name, then what is asked for.
const request = new Native(40);

/** Sets the request; the name is ASCII and short enough. */
function setRequest(name: string, flags: number): void {
  request.bytes.fill(0);
  request.bytes.set(new TextEncoder().encode(name));
  request.view.setUint16(16, flags, true);
}

/** An open TAP device, or one more queue of it. */
export interface Tap {
  /** Non-blocking and closed on exec; the caller owns it. Each read and write is one frame, a network header before it. */
  readonly fd: number;
  /** The interface's name. */
  readonly name: string;
}

/**
 * Opens a TAP device. One of that name that is there already is attached to; a new one goes away with its last descriptor.
 *
 * @param name up to {@link MAX_INTERFACE_NAME} ASCII characters; with `%d` the kernel chooses the number
 * @param multiQueue whether it has a descriptor per queue: the same function opens each
 * @throws {RangeError} for a name that no interface can have
 * @throws {OsError} EPERM when this process may not (it needs CAP_NET_ADMIN, or an interface that its user owns), EBUSY when
 *   another has it, EINVAL when an interface of the name is of another kind
 */
export function openTap(name: string, multiQueue = false): Tap {
  if (!/^[!-.0-~]+$/.test(name) || name.length > MAX_INTERFACE_NAME) {
    throw new RangeError(
      `a network interface's name has 1 to ${MAX_INTERFACE_NAME} ASCII characters, no space and no slash; ` +
        `got ${JSON.stringify(name)}`,
    );
  }
  const fd = openFile("/dev/net/tun", OpenFlag.READ_WRITE);
  try {
    setRequest(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multiQueue ? IFF_MULTI_QUEUE : 0));
    check(libc.ioctl(fd, TUNSETIFF, request.address), "ioctl", () => `attaching to the TAP device ${name}`);
    check(libc.ioctl(fd, TUNGETIFF, request.address), "ioctl", () => `asking the TAP device ${name}`);
    const end = request.bytes.indexOf(0);
    const actual = new TextDecoder().decode(request.bytes.subarray(0, end));
    setNonblocking(fd);
    return { fd, name: actual };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * Sets the size of the network header before each frame: 10 or 12 bytes.
 *
 * @throws {OsError}
 */
export function setTapHeaderSize(fd: number, size: number): void {
  request.set32(0, size);
  check(libc.ioctl(fd, TUNSETVNETHDRSZ, request.address), "ioctl", "setting the header size of a TAP device");
}

/**
 * Says what the reader can take unfinished. Holds for all queues.
 *
 * @param offloads bits of {@link TapOffload}
 * @throws {OsError}
 */
export function setTapOffloads(fd: number, offloads: number): void {
  check(libc.ioctl(fd, TUNSETOFFLOAD, BigInt(offloads)), "ioctl", "setting the offloads of a TAP device");
}

/**
 * Takes a queue of a device with several into use, or out of it: what is out of use gets no frames.
 *
 * @throws {OsError}
 */
export function useTapQueue(fd: number, use: boolean): void {
  setRequest("", use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  check(
    libc.ioctl(fd, TUNSETQUEUE, request.address),
    "ioctl",
    () => `taking a queue of a TAP device ${use ? "into" : "out of"} use`,
  );
}
