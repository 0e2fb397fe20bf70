/**
 * A connection that comes back: one session after the other.
 *
 * @module
 */

import { BackendGoneError, BackOff, type ReconnectOptions } from "./reconnect.ts";
import type { FrontEndSession } from "./session.ts";

/** What a link needs of its front-end. */
export interface LinkContext {
  /** Connects. The session says when it ends by {@link Link.lost}. */
  open(): FrontEndSession;
  /** Tells a new back-end everything. */
  replay(session: FrontEndSession): Promise<void>;
  /** The connection has ended, and is to be made again. */
  onDisconnect(error: unknown): void;
  /** The new back-end has been told everything. */
  onReconnect(): void;
  /**
   * It is over for good. Called once.
   *
   * @param error why, unless the back-end just left or nobody wants it any more
   * @param reason the same in words
   */
  onOver(error: unknown, reason: Error): void;
  /** A callback has failed, which is a mistake of whoever wrote that. */
  onMistake(error: unknown): void;
}

/** While there is no connection. */
interface Absence {
  readonly backOff: BackOff;
  /** Settled when there is one again, or never will be. */
  readonly end: Promise<void>;
  /** Why the last attempt has failed, or the connection has ended. */
  last: unknown;
}

/** The connection of a front-end. */
export class Link {
  /** The session; the one that has ended while there is none. */
  session: FrontEndSession;
  readonly #options: ReconnectOptions | undefined;
  readonly #context: LinkContext;
  /** A session whose back-end has not been told everything. */
  #attempt: FrontEndSession | undefined;
  #absence: Absence | undefined;
  #over: Error | undefined;
  #delay = 0;
  #connectedAt = performance.now();

  /** Connects; without options once only. */
  constructor(options: ReconnectOptions | undefined, context: LinkContext) {
    this.#options = options;
    this.#context = context;
    this.session = context.open();
  }

  /** Whether there is a session, and a back-end that has been told everything. */
  get up(): boolean {
    return this.#over === undefined && this.#absence === undefined;
  }

  /** The session, as soon as its back-end has been told everything. */
  async ready(): Promise<FrontEndSession> {
    await this.#absence?.end;
    if (this.#over !== undefined) throw this.#over;
    return this.session;
  }

  /** Does something that a new back-end is told as well: when the session ends in the middle, that counts. */
  async apply(what: (session: FrontEndSession) => Promise<void>): Promise<void> {
    const session = await this.ready();
    try {
      await what(session);
    } catch (error) {
      if (!session.ended || this.#absence === undefined) throw error;
      await this.ready();
    }
  }

  /** Does something that has an answer: when the session ends in the middle, the next back-end is asked. */
  async ask<T>(what: (session: FrontEndSession) => Promise<T>): Promise<T> {
    for (;;) {
      const session = await this.ready();
      try {
        return await what(session);
      } catch (error) {
        if (!session.ended || this.#absence === undefined) throw error;
      }
    }
  }

  /** Ends it for good. */
  end(error: unknown, reason: Error): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#absence?.backOff.stop();
    this.#attempt?.end(error);
    this.session.end(error);
    this.#context.onOver(error, reason);
  }

  /** A session has ended. */
  lost(session: FrontEndSession, error: unknown): void {
    if (session !== this.session || !this.up) return;
    if (this.#options === undefined) {
      const reason = new Error("the connection with the back-end has ended");
      reason.cause = error;
      return this.end(error, reason);
    }
    const { firstDelay = 10, longestDelay = 1000, patience = Infinity } = this.#options;
    // One that came and went at once is not worth hurrying for.
    const lasted = performance.now() - this.#connectedAt > longestDelay;
    this.#delay = lasted || this.#delay === 0 ? firstDelay : Math.min(2 * this.#delay, longestDelay);
    const backOff = new BackOff({ firstDelay, longestDelay, patience }, this.#delay, () => {
      const gone = new BackendGoneError(patience, this.#absence?.last);
      this.end(gone, gone);
    });
    this.#absence = { backOff, end: this.#reconnect(backOff), last: error };
    this.#call(() => this.#context.onDisconnect(error));
  }

  /** Tries until there is a back-end that has been told everything, or it is no use. Never rejects. */
  async #reconnect(backOff: BackOff): Promise<void> {
    const { features, protocolFeatures } = this.session;
    for (;;) {
      await backOff.wait();
      if (backOff.over) return;
      let session: FrontEndSession | undefined;
      try {
        session = this.#attempt = this.#context.open();
        await session.negotiate({ features, protocolFeatures, needed: [], all: true });
        await this.#context.replay(session);
        if (!session.ended) return this.#arrived(session, backOff);
      } catch (error) {
        if (this.#absence !== undefined) this.#absence.last = error;
        if (backOff.over) return;
        // Who has not answered may do so next time; who has answered no will do so again.
        if (session?.ended === false) return this.end(error, error as Error);
      }
    }
  }

  #arrived(session: FrontEndSession, backOff: BackOff): void {
    backOff.stop();
    this.session = session;
    this.#attempt = this.#absence = undefined;
    this.#connectedAt = performance.now();
    this.#call(() => this.#context.onReconnect());
  }

  #call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#context.onMistake(error);
    }
  }
}
