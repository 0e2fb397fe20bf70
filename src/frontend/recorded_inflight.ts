/**
 * The buffer in which a back-end records the requests that it has, as its front-end keeps it.
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import { ProtocolError } from "../protocol/error.ts";
import type { Inflight } from "../protocol/payloads.ts";
import type { FrontEndSession } from "./session.ts";

/** The buffer, from the back-end that has made it to the ones that come after. Owns its file. */
export class RecordedInflight {
  readonly #inflight: Inflight;
  readonly #fd: number;

  private constructor(inflight: Inflight, fd: number) {
    this.#inflight = inflight;
    this.#fd = fd;
  }

  /**
   * Has the back-end make one.
   *
   * @throws {ProtocolError} when it does not
   */
  static async make(
    session: FrontEndSession,
    numQueues: number,
    queueSize: number,
  ): Promise<RecordedInflight> {
    const { value, fds } = await session.request("GET_INFLIGHT_FD", {
      mmapSize: 0n,
      mmapOffset: 0n,
      numQueues,
      queueSize,
    });
    const fd = fds.take();
    if (fd === undefined || value.mmapSize === 0n) {
      if (fd !== undefined) close(fd);
      throw new ProtocolError("GET_INFLIGHT_FD", "the back-end has made no buffer");
    }
    return new RecordedInflight({ ...value, numQueues, queueSize }, fd);
  }

  /** Whether it has a place for a ring. */
  covers(index: number, size: number): boolean {
    return index < this.#inflight.numQueues && size <= this.#inflight.queueSize;
  }

  /** Gives it to a back-end, before any ring is started. */
  async give(session: FrontEndSession): Promise<void> {
    await session.request("SET_INFLIGHT_FD", this.#inflight, [this.#fd]);
  }

  /** A new one of the same size. */
  renew(session: FrontEndSession): Promise<RecordedInflight> {
    return RecordedInflight.make(session, this.#inflight.numQueues, this.#inflight.queueSize);
  }

  /** Closes the file. */
  close(): void {
    close(this.#fd);
  }
}
