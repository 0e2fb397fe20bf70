/**
 * A front-end's session: what it negotiates, shares and starts.
 *
 * @module
 */

import { Errno, OsError } from "../../ffi/os_error.ts";
import { frontendMessages } from "../protocol/messages.ts";
import { Connection } from "../transport/connection.ts";
import { Responder } from "../transport/responder.ts";
import { after, all } from "./awaitable.ts";
import type { BrokenRing } from "./broken_ring.ts";
import type { Device } from "./device.ts";
import { configHandlers } from "./handlers/config.ts";
import { deviceHandlers } from "./handlers/device.ts";
import { memoryHandlers } from "./handlers/memory.ts";
import { migrationHandlers } from "./handlers/migration.ts";
import { negotiationHandlers } from "./handlers/negotiation.ts";
import { ringHandlers } from "./handlers/rings.ts";
import type { ServerMetrics } from "./server_metrics.ts";
import { type SessionOptions, SessionState } from "./session_state.ts";
import { Journal } from "./takeover/journal.ts";
import { TakeoverError } from "./takeover/messages.ts";
import { record, refusal, restore, type SessionRecord } from "./takeover/session_record.ts";

/** Whether the front-end has gone without reading all that was sent to it: it was killed, most likely. */
function isHangup(error: unknown): boolean {
  return error instanceof OsError && (error.errno === Errno.ECONNRESET || error.errno === Errno.EPIPE);
}

/** One front-end and the device that it drives. Owns the connection, guest memory and all rings. */
export class Session {
  /** Connection with the front-end. */
  readonly connection: Connection;
  /** Number of the session: 1 for the server's first front-end. */
  readonly number: number;
  readonly #metrics: ServerMetrics;
  readonly #state: SessionState;
  readonly #responder: Responder<typeof frontendMessages>;
  readonly #journal: Journal | undefined;
  readonly #unwatch: () => void;
  readonly #onEnd: () => void;
  /** Counts {@link freeze} and {@link thaw}: a freeze that comes too late does nothing. */
  #turn = 0;
  #resting: Promise<unknown> | undefined;
  #ended = false;
  #released = false;

  /**
   * Takes over a connected socket and starts serving it.
   *
   * @param taken a session of another process, to be brought here by {@link restore}; nothing is served before
   * {@link thaw}
   */
  constructor(fd: number, device: Device, options: SessionOptions, taken?: SessionRecord) {
    this.number = options.number;
    this.#metrics = options.metrics;
    this.connection = new Connection(fd, frontendMessages, taken?.begun);
    const state = this.#state = new SessionState(device, options);
    this.#onEnd = options.onEnd;
    this.#unwatch = device.onConfigChange(() => state.configChanged());
    const journal = this.#journal = options.handover === true
      ? new Journal(state.vrings.length, state.memory)
      : undefined;
    state.onRewound = () => journal?.forgetConfig();
    const handlers = {
      ...negotiationHandlers(state),
      ...memoryHandlers(state),
      ...ringHandlers(state),
      ...configHandlers(state),
      ...migrationHandlers(state),
      ...deviceHandlers(state),
    };
    const recorded = journal?.recording(handlers) ?? handlers;
    this.#responder = new Responder(this.connection, frontendMessages, recorded, options.reactor, {
      replyAck: () => state.negotiated("REPLY_ACK"),
      refuse: (row) => state.refuse(row),
      rate: state.limits.messages,
      onFailure: (error) =>
        state.log("warning", "a request of the front-end failed", error, { event: "message.refused" }),
      onHangUp: () => state.transfer?.cancel(),
      onEnd: (error) => this.#end(error),
    });
    state.onFatal = (error) => this.#responder.end(error);
    for (const { opened } of state.remoteHosts) opened.catch((error) => this.#responder.end(error));
    if (taken === undefined) return;
    this.#resting = this.#rest();
    this.#resting.catch(() => {});
  }

  /** Called with what was found in each ring that breaks, and with the error, after that was logged. */
  set onBrokenRing(called: ((broken: BrokenRing, error: unknown) => void) | undefined) {
    this.#state.onBroken = called;
  }

  /** Drops the front-end. */
  end(): void {
    this.#responder.end();
  }

  /** Reads nothing more, and lets the rings rest. Returns where those stand. */
  async #rest(): Promise<readonly { readonly index: number; readonly num: number }[]> {
    const state = this.#state;
    const turn = ++this.#turn;
    await this.#responder.hold();
    if (turn !== this.#turn) return [];
    state.frozen = true;
    const positions = await Promise.all(state.hosts.map((host) => host.freeze()));
    if (turn === this.#turn) await state.channel.hold();
    return positions.flat();
  }

  /**
   * Comes to rest, so that another process can go on: reads no message, has no request under way, touches no ring. Until
   * {@link thaw} or {@link release}.
   *
   * @returns what the other process needs; its descriptors stay the session's
   * @throws {TakeoverError} when the session cannot be handed over now; {@link thaw} is needed all the same
   *
   * @ignore
   */
  async freeze(): Promise<SessionRecord> {
    const state = this.#state;
    if (this.#journal === undefined) throw new TakeoverError("the session is not written down");
    // A front-end that takes its time to answer holds up nothing yet.
    await state.channel.answered();
    const turn = this.#turn + 1;
    const positions = await this.#rest();
    const reason = this.#ended ? "the front-end has left" : refusal(state);
    if (reason !== undefined) throw new TakeoverError(reason);
    const taken = await record(state, this.#journal, positions, this.connection.begun);
    if (turn !== this.#turn) throw new TakeoverError("it was given up");
    return taken;
  }

  /**
   * Ends {@link freeze}; or starts to serve a session that was restored.
   *
   * @ignore
   */
  thaw(): void {
    this.#turn++;
    const state = this.#state;
    if (this.#ended) return;
    state.frozen = false;
    state.channel.resume();
    all(state.hosts.map((host) => host.thaw()))?.catch((error) => this.#responder.end(error));
    this.#responder.resume();
    state.flushConfigChange();
  }

  /**
   * Takes up where another process has come to rest.
   *
   * @throws {Error} when this device cannot go on with it
   *
   * @ignore
   */
  async restore(taken: SessionRecord): Promise<void> {
    await this.#resting;
    await restore(this.#state, this.#responder, taken);
  }

  /**
   * Another process goes on: lets go of all, without a trace for the front-end.
   *
   * @ignore
   */
  release(): void {
    this.#released = true;
    this.#responder.release();
  }

  #end(error: unknown): void {
    this.#ended = true;
    const state = this.#state;
    this.#metrics.sessionsEnded++;
    if (isHangup(error)) {
      state.log("info", "the front-end has left, with answers unread", undefined, { event: "session.ended" });
    } else if (error !== undefined) {
      this.#metrics.sessionsFailed++;
      state.log("error", "the session is over", error, { event: "session.failed" });
    } else if (!this.#released) {
      state.log("info", "the front-end has left", undefined, { event: "session.ended" });
    }
    this.#unwatch();
    const closed = all(state.remoteHosts.map((host) => host.close()));
    const unfinished = all([state.host.closeRings(), ...state.remoteHosts.map((host) => host.finished())]);
    if (this.#released) state.releaseChannel();
    else state.closeChannel();
    state.transfer?.cancel();
    this.#journal?.close();
    after(closed, () => {
      state.postcopy.end();
      state.host.closeMemory();
      // The next front-end of an exclusive device must not be overtaken by what this one has asked for.
      after(unfinished, this.#onEnd);
    });
  }
}
