/**
 * The older of two back-ends: gives what it serves to a newer one that asks for it.
 *
 * @module
 */

import { ClockId, clockTime } from "../../../ffi/clock.ts";
import { close } from "../../../ffi/fd.ts";
import { Listener } from "../../../ffi/listener.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import { accept, ownCredentials, peerCredentials } from "../../../ffi/socket.ts";
import { MAX_PAYLOAD } from "../../protocol/header.ts";
import { frontendMessages } from "../../protocol/messages.ts";
import { errorText, type Log } from "../log.ts";
import type { Session } from "../session.ts";
import { Dialogue } from "./dialogue.ts";
import {
  hello,
  MAGIC,
  PATIENCE,
  serverPart,
  sessionPart,
  setupHead,
  TakeoverError,
  VERSION,
} from "./messages.ts";
import type { SessionRecord } from "./session_record.ts";

/** How long whoever has connected may take to say what it wants, ms. */
const GREETING = 2000;
/** Conversations at once; only one of them gets anything. */
const MOST = 4;

/** What is given: a server, as this module sees it. */
export interface Givable {
  /** Virtio device id. */
  readonly device: number;
  /** Name of the device, for people. */
  readonly name: string;
  /** The socket that front-ends connect to. */
  readonly listener: number;
  /** Why it can never be given, for people; `undefined` when it can. */
  readonly refusal: string | undefined;
  /** Front-ends. */
  readonly sessions: Iterable<Session>;
  /** Accepts no front-end until {@link resume}. */
  pause(): void;
  /** Ends {@link pause}. */
  resume(): void;
  /** It is another process's now. */
  given(pid: number): void;
}

/** Listens for a newer back-end. Owns its socket. */
export class Giver {
  readonly #listener: Listener;
  readonly #givable: Givable;
  readonly #reactor: Reactor;
  readonly #log: Log;
  readonly #patience: number;
  readonly #user: number;
  readonly #dialogues = new Set<Dialogue>();
  #giving = false;
  #closed = false;

  /**
   * Listens, with permission for this user alone.
   *
   * @param where a path, or a socket that listens on it
   * @param patience how long the rings may stand still, ms
   * @param user who may ask, by number
   * @throws {SocketInUseError} when another process listens on the path
   * @throws {OsError} when the socket cannot be made
   */
  constructor(
    path: string,
    inherited: { readonly fd: number } | undefined,
    givable: Givable,
    reactor: Reactor,
    log: Log,
    patience: number = PATIENCE,
    user: number = ownCredentials().uid,
  ) {
    this.#user = user;
    this.#listener = inherited === undefined ? new Listener(path, 0o600) : new Listener(path, inherited);
    this.#givable = givable;
    this.#reactor = reactor;
    this.#log = log;
    this.#patience = patience;
    reactor.watch(this.#listener.fd, () => this.#accept());
  }

  /** Stops listening, and gives nothing any more: who is just being given something is left with nothing. */
  close(): void {
    if (this.#end()) this.#listener.close();
  }

  /** The same, but leaves the socket file to the process that it was given to. */
  release(): void {
    if (this.#end()) this.#listener.release();
  }

  #end(): boolean {
    if (this.#closed) return false;
    this.#closed = true;
    this.#reactor.unwatch(this.#listener.fd);
    for (const dialogue of [...this.#dialogues]) dialogue.close();
    return true;
  }

  #accept(): void {
    const fd = accept(this.#listener.fd);
    if (fd === null) return;
    const peer = peerCredentials(fd);
    if (peer.uid !== this.#user || this.#dialogues.size >= MOST) {
      const why = peer.uid !== this.#user ? `user ${peer.uid} is not user ${this.#user}` : "too many ask";
      this.#log(
        "warning",
        `${this.#givable.name}: process ${peer.pid} may not take over: ${why}`,
        undefined,
        {
          event: "takeover.failed",
          device: this.#givable.name,
        },
      );
      close(fd);
      return;
    }
    const dialogue = new Dialogue(fd, this.#reactor, GREETING);
    this.#dialogues.add(dialogue);
    void this.#converse(dialogue, peer.pid).finally(() => {
      this.#dialogues.delete(dialogue);
      dialogue.close();
    });
  }

  async #converse(dialogue: Dialogue, pid: number): Promise<void> {
    const { name } = this.#givable;
    try {
      await this.#check(dialogue);
      if (this.#giving) throw new TakeoverError("another process is taking over");
      this.#giving = true;
      try {
        await this.#give(dialogue, pid);
      } finally {
        this.#giving = false;
      }
    } catch (error) {
      this.#log("warning", `${name}: process ${pid} has not taken over; this one serves on`, error, {
        event: "takeover.failed",
        device: name,
      });
      dialogue.patience = GREETING;
      const text = new TextEncoder().encode(errorText(error)).subarray(0, MAX_PAYLOAD);
      await dialogue.send("REFUSED", text).catch(() => {});
    }
  }

  async #check(dialogue: Dialogue): Promise<void> {
    const { name, payload } = await dialogue.receive();
    if (name !== "HELLO" || payload.length < hello.size) {
      throw new TakeoverError(`expected HELLO, got ${name}`);
    }
    const said = hello.decode(payload);
    if (said.magic !== MAGIC) throw new TakeoverError("HELLO is not one of a back-end");
    if (said.version !== VERSION) {
      throw new TakeoverError(`format of the hand-over: ${VERSION} here, ${said.version} there`);
    }
    if (said.device !== this.#givable.device) {
      throw new TakeoverError(
        `the device is of virtio type ${this.#givable.device} here, ${said.device} there`,
      );
    }
    const { refusal } = this.#givable;
    if (refusal !== undefined) throw new TakeoverError(refusal);
  }

  async #give(dialogue: Dialogue, pid: number): Promise<void> {
    const givable = this.#givable;
    dialogue.patience = this.#patience;
    const since = clockTime(ClockId.MONOTONIC);
    givable.pause();
    const sessions = [...givable.sessions];
    try {
      const records = await inTime(dialogue, Promise.all(sessions.map((session) => session.freeze())));
      const part = { version: VERSION, pid: ownCredentials().pid, sessions: sessions.length, since };
      await dialogue.send("SERVER", serverPart.encode(part), [givable.listener, this.#listener.fd]);
      for (const [i, session] of sessions.entries()) {
        await sendSession(dialogue, session.connection.fd, records[i]);
      }
      await dialogue.send("END");
      const { name, fds } = await dialogue.receive();
      fds.close();
      if (name !== "TAKEN") throw new TakeoverError(`expected TAKEN, got ${name}`);
    } catch (error) {
      // It may have been said at the last moment; from here on it cannot be.
      if (!dialogue.decided()) {
        for (const session of sessions) session.thaw();
        givable.resume();
        throw error;
      }
    }
    this.release();
    givable.given(pid);
  }
}

/** Waits for a promise as long as the conversation may still take. */
async function inTime<T>(dialogue: Dialogue, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const { left } = dialogue;
    const error = new TakeoverError(`requests are still under way after ${Math.round(left)} ms`);
    timer = setTimeout(() => reject(error), left);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function sendSession(dialogue: Dialogue, fd: number, record: SessionRecord): Promise<void> {
  const { rings, configPending, begun, entries, config, state } = record;
  await dialogue.send("SESSION", sessionPart.encode({ rings, configPending: configPending ? 1 : 0 }), [fd]);
  let fds = begun.fds.list();
  for (const piece of pieces(begun.bytes)) {
    await dialogue.send("INPUT", piece, fds);
    fds = [];
  }
  for (const { name, payload, fds } of entries) {
    const bytes = new Uint8Array(setupHead.size + payload.length);
    bytes.set(setupHead.encode({ request: frontendMessages[name].id }));
    bytes.set(payload, setupHead.size);
    await dialogue.send("SETUP", bytes, fds);
  }
  if (config !== undefined) await dialogue.send("CONFIG", config);
  for (const piece of pieces(state ?? new Uint8Array(0))) await dialogue.send("STATE", piece);
}

function* pieces(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) yield bytes.subarray(at, at + MAX_PAYLOAD);
}
