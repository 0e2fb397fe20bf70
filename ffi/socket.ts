/**
 * Unix sockets, and descriptors over them.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { check, Errno, OsError } from "./os_error.ts";
import { close, DescriptorBag } from "./fd.ts";
import { littleEndian, Native } from "./native.ts";

const AF_UNIX = 1;
/** Kinds of Unix sockets by their names: bytes in a row, or messages that stay apart (`unix(7)`). */
const KINDS = { stream: 1, seqpacket: 5 } as const;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** The longest path a Unix socket may have, bytes (`unix(7)`: 108 with the closing zero). */
export const MAX_SOCKET_PATH = 107;

// struct sockaddr_un: u16 family, 108 bytes of path.
const address = new Native(110);

function setAddress(path: string): number {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > MAX_SOCKET_PATH || bytes.includes(0)) {
    throw new RangeError(
      `socket path must have 1 to ${MAX_SOCKET_PATH} bytes and no zero byte, got ${bytes.length}: ${path}`,
    );
  }
  address.bytes.fill(0);
  address.view.setUint16(0, AF_UNIX, littleEndian);
  address.bytes.set(bytes, 2);
  return 2 + bytes.length + 1;
}

/** A kind of socket that has connections: bytes in a row, or messages that stay apart. */
export type SocketKind = keyof typeof KINDS;

function unixSocket(kind: SocketKind): number {
  return check(
    libc.socket(AF_UNIX, KINDS[kind] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
    "socket",
    "creating a Unix socket",
  );
}

/**
 * Connects to a listening socket. The result is non-blocking and closed on exec; the caller owns it.
 *
 * @throws {OsError} ENOENT without a socket file, ECONNREFUSED when nobody listens, EAGAIN when the
 *   listener's backlog is full, EPROTOTYPE when the listener is of another kind
 */
export function connect(path: string, kind: SocketKind = "stream"): number {
  const length = setAddress(path);
  const fd = unixSocket(kind);
  if (libc.connect(fd, address.address, length) < 0) {
    const number = errno();
    close(fd);
    throw new OsError("connect", number, `connecting to ${path}`);
  }
  return fd;
}

/**
 * A socket for datagrams to one receiver, non-blocking and closed on exec; the caller owns it.
 *
 * @param path of the receiver's socket; after an `@`, a name in the abstract namespace (`unix(7)`)
 * @throws {OsError} ENOENT or ECONNREFUSED when there is no receiver
 */
export function connectDatagram(path: string): number {
  let length = setAddress(path);
  if (path.startsWith("@")) {
    address.bytes[2] = 0;
    length--; // Such a name does not end with a zero.
  }
  const fd = check(
    libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
    "socket",
    "creating a Unix socket",
  );
  if (libc.connect(fd, address.address, length) < 0) {
    const number = errno();
    close(fd);
    throw new OsError("connect", number, `connecting to ${path}`);
  }
  return fd;
}

/**
 * Binds and listens. The socket file appears with the given mode from the start: the umask is set around
 * `bind`, so that there is no moment in which others could connect. An existing file is not replaced.
 *
 * @param mode permission bits of the socket file
 * @returns a non-blocking listening socket that the caller owns; the caller also removes the file
 * @throws {OsError} EADDRINUSE when the path exists
 */
export function listen(path: string, mode = 0o600, backlog = 16, kind: SocketKind = "stream"): number {
  const length = setAddress(path);
  const fd = unixSocket(kind);
  const before = libc.umask(0o777 & ~mode);
  const bound = libc.bind(fd, address.address, length);
  const bindError = bound < 0 ? errno() : 0;
  libc.umask(before);
  if (bound < 0) {
    close(fd);
    throw new OsError("bind", bindError, `creating the socket ${path}`);
  }
  if (libc.listen(fd, backlog) < 0) {
    const number = errno();
    close(fd);
    throw new OsError("listen", number, `listening on ${path}`);
  }
  return fd;
}

/**
 * Takes a waiting connection.
 *
 * @returns a non-blocking socket that the caller owns, or `null` when none is waiting
 * @throws {OsError}
 */
export function accept(fd: number): number | null {
  const connection = libc.accept4(fd, 0n, 0n, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection >= 0) return connection;
  const number = errno();
  if (number === Errno.EAGAIN || number === Errno.EINTR || number === 103) return null;
  throw new OsError("accept4", number, `accepting on descriptor ${fd}`);
}

const pair = new Native(8);

/**
 * Two connected sockets, non-blocking and closed on exec. The caller owns both.
 *
 * @throws {OsError}
 */
export function socketPair(): [number, number] {
  check(
    libc.socketpair(AF_UNIX, KINDS.stream | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.address),
    "socketpair",
    "creating a pair of sockets",
  );
  return [pair.get32(0), pair.get32(4)];
}

/** Ends both directions; the peer reads the end of the stream. The descriptor stays open. */
export function shutdown(fd: number): void {
  libc.shutdown(fd, 2);
}

/** Ends the direction to the peer, who reads the end of the stream and can still send. */
export function shutdownSending(fd: number): void {
  libc.shutdown(fd, 1);
}

/** Ends the direction from the peer, whose writes fail from now on. What it has sent is thrown away. */
export function shutdownReceiving(fd: number): void {
  libc.shutdown(fd, 0);
}

/** Whether the peer takes nothing any more, because it has closed its end altogether. */
export function hasLeft(fd: number): boolean {
  setMessage(0n, 0, 0);
  return libc.sendmsg(fd, message.address, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno() !== Errno.EAGAIN;
}

const option = new Native(16);

function socketOption(fd: number, name: number, length: number, what: string): void {
  option.set32(12, length);
  check(
    libc.getsockopt(fd, SOL_SOCKET, name, option.address, option.address + 12n),
    "getsockopt",
    () => `${what} of descriptor ${fd}`,
  );
}

/** Asks for room for `byteLength` bytes that the peer has not read yet; the kernel gives less when that is too much. */
export function setSendBuffer(fd: number, byteLength: number): void {
  option.set32(0, byteLength);
  libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, option.address, 4);
}

/**
 * Whether a socket listens (or else is connected).
 *
 * @throws {OsError} ENOTSOCK when it is not a socket
 */
export function isListening(fd: number): boolean {
  socketOption(fd, SO_ACCEPTCONN, 4, "asking the state");
  return option.get32(0) !== 0;
}

/** Who is at the other end of a Unix socket, as of its `connect` or `listen`. */
export interface PeerCredentials {
  /** Process id. */
  readonly pid: number;
  /** User id. */
  readonly uid: number;
  /** Group id. */
  readonly gid: number;
}

/**
 * `SO_PEERCRED`.
 *
 * @throws {OsError}
 */
export function peerCredentials(fd: number): PeerCredentials {
  socketOption(fd, SO_PEERCRED, 12, "asking the peer");
  return { pid: option.get32(0), uid: option.get32(4) >>> 0, gid: option.get32(8) >>> 0 };
}

/** This process, as a peer sees it. */
export function ownCredentials(): PeerCredentials {
  const [one, other] = socketPair();
  try {
    return peerCredentials(one);
  } finally {
    close(one);
    close(other);
  }
}

/** The most descriptors that one message may carry here; the protocol allows 8, crosvm sends up to 32. */
export const MAX_DESCRIPTORS = 32;

const CMSG_HEADER = 16;
const CONTROL_SIZE = CMSG_HEADER + 4 * MAX_DESCRIPTORS;

/**
 * The structures of one `sendmsg` or `recvmsg`, laid out once: struct msghdr at 0, one struct iovec at
 * 56, the control data at 72.
 */
const message = new Native(72 + CONTROL_SIZE);
const CONTROL = 72;

function setMessage(at: bigint, length: number, controlLength: number): void {
  message.set64(0, 0n);
  message.set64(8, 0n);
  message.set64(16, message.address + 56n);
  message.set64(24, 1n);
  message.set64(32, controlLength === 0 ? 0n : message.address + BigInt(CONTROL));
  message.set64(40, BigInt(controlLength));
  message.set64(48, 0n);
  message.set64(56, at);
  message.set64(64, BigInt(length));
}

/**
 * Sends bytes with descriptors, without waiting. The peer gets copies of the descriptors; the caller
 * keeps its own. When fewer bytes than asked went out, the descriptors went with them.
 *
 * @param at address of the first byte
 * @returns bytes sent, or -1 when the peer's buffer is full
 * @throws {OsError} EPIPE or ECONNRESET when the peer has gone
 */
export function send(fd: number, at: bigint, length: number, fds: readonly number[] = []): number {
  if (fds.length > MAX_DESCRIPTORS) {
    throw new RangeError(`at most ${MAX_DESCRIPTORS} descriptors in a message, got ${fds.length}`);
  }
  const data = CMSG_HEADER + 4 * fds.length;
  setMessage(at, length, fds.length === 0 ? 0 : (data + 7) & ~7);
  message.set64(CONTROL, BigInt(data));
  message.set32(CONTROL + 8, SOL_SOCKET);
  message.set32(CONTROL + 12, SCM_RIGHTS);
  fds.forEach((each, i) => message.set32(CONTROL + CMSG_HEADER + 4 * i, each));
  for (;;) {
    const sent = libc.sendmsg(fd, message.address, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    const number = errno();
    if (number === Errno.EAGAIN) return -1;
    if (number !== Errno.EINTR) throw new OsError("sendmsg", number, `sending on descriptor ${fd}`);
  }
}

/** What {@link receive} got. */
export interface Received {
  /** Bytes; 0 at the end of the stream, -1 when nothing has come yet. */
  readonly length: number;
  /** Descriptors that came along, closed on exec; the caller owns them. */
  readonly fds: DescriptorBag;
  /** Whether the kernel had to drop descriptors: more than {@link MAX_DESCRIPTORS}, or our table is full. */
  readonly truncated: boolean;
}

/**
 * Receives bytes and the descriptors that were sent with the first of them, without waiting.
 *
 * @param at address to write to
 * @param length most bytes to take
 * @throws {OsError} ECONNRESET when the peer has gone
 */
export function receive(fd: number, at: bigint, length: number): Received {
  setMessage(at, length, CONTROL_SIZE);
  for (;;) {
    const n = libc.recvmsg(fd, message.address, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) {
      const number = errno();
      if (number === Errno.EINTR) continue;
      if (number === Errno.EAGAIN) return { length: -1, fds: new DescriptorBag(), truncated: false };
      throw new OsError("recvmsg", number, `receiving on descriptor ${fd}`);
    }
    const fds: number[] = [];
    const end = CONTROL + Number(message.get64(40));
    for (let at = CONTROL; at + CMSG_HEADER <= end;) {
      const size = Number(message.get64(at));
      if (size < CMSG_HEADER) break;
      if (message.get32(at + 8) === SOL_SOCKET && message.get32(at + 12) === SCM_RIGHTS) {
        for (let i = at + CMSG_HEADER; i + 4 <= at + size; i += 4) fds.push(message.get32(i));
      }
      at += (size + 7) & ~7;
    }
    return {
      length: n,
      fds: new DescriptorBag(fds),
      truncated: (message.get32(48) & MSG_CTRUNC) !== 0,
    };
  }
}
