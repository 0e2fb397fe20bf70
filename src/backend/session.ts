/**
 * A front-end's session: what it negotiates, shares and starts.
 *
 * @module
 */

import { frontendMessages } from "../protocol/messages.ts";
import { Connection } from "../transport/connection.ts";
import { Responder } from "../transport/responder.ts";
import { after, all } from "./awaitable.ts";
import type { Device } from "./device.ts";
import { configHandlers } from "./handlers/config.ts";
import { deviceHandlers } from "./handlers/device.ts";
import { memoryHandlers } from "./handlers/memory.ts";
import { migrationHandlers } from "./handlers/migration.ts";
import { negotiationHandlers } from "./handlers/negotiation.ts";
import { ringHandlers } from "./handlers/rings.ts";
import { type SessionOptions, SessionState } from "./session_state.ts";

/** One front-end and the device that it drives. Owns the connection, guest memory and all rings. */
export class Session {
  /** Connection with the front-end. */
  readonly connection: Connection;
  readonly #state: SessionState;
  readonly #responder: Responder<typeof frontendMessages>;
  readonly #unwatch: () => void;
  readonly #onEnd: () => void;

  /** Takes over a connected socket and starts serving it. */
  constructor(fd: number, device: Device, options: SessionOptions) {
    const state = this.#state = new SessionState(device, options);
    this.#onEnd = options.onEnd;
    this.#unwatch = device.onConfigChange(() => state.configChanged());
    this.connection = new Connection(fd, frontendMessages);
    const handlers = {
      ...negotiationHandlers(state),
      ...memoryHandlers(state),
      ...ringHandlers(state),
      ...configHandlers(state),
      ...migrationHandlers(state),
      ...deviceHandlers(state),
    };
    this.#responder = new Responder(this.connection, frontendMessages, handlers, options.reactor, {
      replyAck: () => state.negotiated("REPLY_ACK"),
      refuse: (row) => state.refuse(row),
      onFailure: (error) => state.log("warning", "a request of the front-end failed", error),
      onEnd: (error) => this.#end(error),
    });
    for (const { opened } of state.remoteHosts) opened.catch((error) => this.#responder.end(error));
  }

  /** Drops the front-end. */
  end(): void {
    this.#responder.end();
  }

  #end(error: unknown): void {
    const state = this.#state;
    if (error !== undefined) state.log("error", "the session is over", error);
    else state.log("info", "the front-end has left");
    this.#unwatch();
    const closed = all(state.remoteHosts.map((host) => host.close()));
    const unfinished = all([state.host.closeRings(), ...state.remoteHosts.map((host) => host.finished())]);
    state.closeChannel();
    state.transfer?.cancel();
    after(closed, () => {
      state.postcopy.end();
      state.host.closeMemory();
      // The next front-end of an exclusive device must not be overtaken by what this one has asked for.
      after(unfinished, this.#onEnd);
    });
  }
}
