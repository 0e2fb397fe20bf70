/**
 * What a service manager such as systemd and its services tell each other: sockets that it has opened for a service
 * (`sd_listen_fds(3)`), and that the service is ready (`sd_notify(3)`).
 *
 * @module
 */

import { libc, variable } from "./deno.ts";
import { close, fileStatus, isOpen } from "./fd.ts";
import { Native } from "./native.ts";
import { OsError } from "./os_error.ts";
import { connectDatagram } from "./socket.ts";

/** The first descriptor that is passed (SD_LISTEN_FDS_START); the others follow. */
const FIRST = 3;
const F_SETFD = 2;
const FD_CLOEXEC = 1n;

/**
 * The sockets that the service manager has opened for this process; none when it was not started by one, or they are
 * meant for another process. They are closed on exec from here on. The caller owns them.
 *
 * @param pid of this process
 * @throws {Error} when LISTEN_FDS is not a number of descriptors, or one of them is not a socket
 */
export function activatedSockets(pid: number): number[] {
  const count = variable("LISTEN_FDS");
  if (count === undefined || variable("LISTEN_PID") !== String(pid)) return [];
  if (!/^\d{1,4}$/.test(count)) throw new Error(`LISTEN_FDS must be a number of descriptors, got '${count}'`);
  return Array.from({ length: Number(count) }, (_, i) => {
    const fd = FIRST + i;
    const kind = isOpen(fd) ? fileStatus(fd).kind : "closed";
    if (kind !== "socket") {
      throw new Error(`descriptor ${fd} must be a socket by LISTEN_FDS=${count}, and is ${kind}`);
    }
    libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
  });
}

/** The wish of a service manager to hear when its service is ready. Owns a socket. */
export class ReadyNotice {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Connects to whoever wants to know; `undefined` when nobody does, or nobody listens there any more. To be called before
   * a sandbox forbids it.
   */
  static open(): ReadyNotice | undefined {
    const path = variable("NOTIFY_SOCKET");
    if (path === undefined || path === "") return undefined;
    try {
      return new ReadyNotice(connectDatagram(path));
    } catch (error) {
      // Left over from somebody else's environment.
      if (error instanceof OsError) return undefined;
      throw error;
    }
  }

  /** Says so, once, and closes. What cannot be said is not said: the service serves all the same. */
  send(): void {
    const message = new TextEncoder().encode("READY=1");
    const native = new Native(message.length);
    native.bytes.set(message);
    libc.write(this.#fd, native.address, BigInt(message.length));
    close(this.#fd);
  }

  /** Closes without a word. */
  close(): void {
    close(this.#fd);
  }
}
