/**
 * A socket that listens under a path.
 *
 * @module
 */

import { close, pathStatus } from "./fd.ts";
import { removeFile } from "./file.ts";
import { Errno, OsError } from "./os_error.ts";
import { connect, listen, type SocketKind } from "./socket.ts";

/** The path of a socket that another server listens on. */
export class SocketInUseError extends Error {
  /** The error's class name. */
  override readonly name = "SocketInUseError";
}

function identity(path: string): string {
  const { device, inode, kind } = pathStatus(path);
  return `${kind}:${device}:${inode}`;
}

/** Listens, in place of a socket file that nobody listens on any more. */
function listenOn(path: string, mode: number, kind: SocketKind, backlog: number): number {
  try {
    return listen(path, mode, backlog, kind);
  } catch (error) {
    if (!(error instanceof OsError) || error.errno !== Errno.EADDRINUSE) throw error;
  }
  if (!identity(path).startsWith("socket:")) {
    throw new SocketInUseError(`${path} exists and is not a socket; it is left as it is`);
  }
  try {
    close(connect(path, kind));
  } catch (error) {
    if (error instanceof OsError && error.errno === Errno.ECONNREFUSED) {
      removeFile(path);
      return listen(path, mode, backlog, kind);
    }
    if (!(error instanceof OsError) || error.errno !== Errno.EAGAIN) throw error;
  }
  throw new SocketInUseError(`another process is listening on ${path}: stop it, or choose another path`);
}

/** A listening socket and its file. Owns both. */
export class Listener {
  /** The socket; non-blocking. */
  readonly fd: number;
  readonly #path: string;
  readonly #identity: string;

  /**
   * Listens. A socket file that nobody listens on any more is replaced.
   *
   * @param mode permission bits of the socket file
   * @param kind of socket
   * @param backlog connections that may wait to be accepted
   * @throws {SocketInUseError} when another process listens on the path, or it is not a socket
   * @throws {OsError} when the socket cannot be made
   */
  constructor(path: string, mode: number, kind?: SocketKind, backlog?: number);
  /** Takes over a socket that listens on the path already. */
  constructor(path: string, listening: { readonly fd: number });
  constructor(
    path: string,
    how: number | { readonly fd: number },
    kind: SocketKind = "stream",
    backlog = 16,
  ) {
    this.fd = typeof how === "number" ? listenOn(path, how, kind, backlog) : how.fd;
    this.#path = path;
    this.#identity = identity(path);
  }

  /** Closes the socket and leaves the file to another process that has the socket, too. */
  release(): void {
    close(this.fd);
  }

  /** Stops listening and removes the file, unless another server has put its own there by now. */
  close(): void {
    close(this.fd);
    try {
      if (identity(this.#path) === this.#identity) removeFile(this.#path);
    } catch {
      // Somebody has removed it already.
    }
  }
}
