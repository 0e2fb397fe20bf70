/**
 * The newer of two back-ends: asks the older one for what it serves.
 *
 * @module
 */

import { ClockId, clockTime } from "../../../ffi/clock.ts";
import { close, DescriptorBag } from "../../../ffi/fd.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import { connect, ownCredentials, peerCredentials } from "../../../ffi/socket.ts";
import { MAX_PAYLOAD } from "../../protocol/header.ts";
import { type FrontendMessage, frontendMessages, messageName } from "../../protocol/messages.ts";
import type { Message } from "../../transport/connection.ts";
import { errorText } from "../log.ts";
import { Dialogue } from "./dialogue.ts";
import type { Entry } from "./journal.ts";
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

/** A session as it comes, piece by piece. */
interface Arriving {
  readonly fd: number;
  readonly rings: number;
  readonly configPending: boolean;
  input: Uint8Array;
  readonly inputFds: DescriptorBag;
  readonly entries: Entry[];
  config: Uint8Array | undefined;
  readonly state: Uint8Array[];
}

/** A session that was given: its connection, and how it stands. */
export interface GivenSession {
  /** The connected socket. */
  readonly fd: number;
  /** The rest; the descriptors of its entries are those of the {@link Gift}. */
  readonly record: SessionRecord;
}

/** What an older back-end gives. The older one waits until {@link take} or {@link refuse}, which have to come soon. */
export class Gift {
  /** Process that gives it. */
  pid = 0;
  /** The socket that front-ends connect to. */
  listener = -1;
  /** The socket on which this is asked for. */
  control = -1;
  readonly #dialogue: Dialogue;
  /** Sockets that nobody has taken. */
  readonly #left = new Set<number>();
  readonly #arriving: Arriving[] = [];
  #since = 0n;
  #expected = 0;

  /**
   * Asks.
   *
   * @param path of the socket beside that of the device
   * @param device virtio device id
   * @returns `undefined` when nobody is there to be asked
   * @throws {TakeoverError} when the older one refuses, or does not answer in time; it serves on
   * @throws {OsError} when it cannot be asked
   */
  static async ask(
    path: string,
    device: number,
    reactor: Reactor,
    patience: number = PATIENCE,
  ): Promise<Gift | undefined> {
    const fd = connectTo(path);
    if (fd < 0) return undefined;
    const listens = peerCredentials(fd).uid;
    const { uid } = ownCredentials();
    if (listens !== uid) {
      close(fd);
      throw new TakeoverError(`user ${listens} listens on ${path}, not user ${uid}`);
    }
    // The older one decides; it takes at most its patience, and some for what is said before.
    const gift = new Gift(new Dialogue(fd, reactor, 2 * patience));
    try {
      await gift.#receive(device);
      return gift;
    } catch (error) {
      await gift.refuse(error);
      throw error;
    }
  }

  private constructor(dialogue: Dialogue) {
    this.#dialogue = dialogue;
  }

  /** The sessions. */
  get sessions(): GivenSession[] {
    return this.#arriving.map(({ fd, rings, configPending, input, inputFds, entries, config, state }) => ({
      fd,
      record: {
        rings,
        configPending,
        begun: { bytes: input, fds: inputFds },
        entries,
        config,
        state: state.length === 0 ? undefined : joined(state),
      },
    }));
  }

  async #receive(device: number): Promise<void> {
    await this.#dialogue.send("HELLO", hello.encode({ magic: MAGIC, version: VERSION, device }));
    for (;;) {
      const message = await this.#dialogue.receive();
      try {
        if (this.#arrived(message)) return;
      } finally {
        message.fds.close();
      }
    }
  }

  /** Returns whether that was all. */
  #arrived({ name, payload, fds }: Message): boolean {
    if (name === "SERVER" && this.listener < 0) {
      const { version, pid, sessions, since } = serverPart.decode(payload);
      if (version !== VERSION) {
        throw new TakeoverError(`format of the hand-over: ${version} there, ${VERSION} here`);
      }
      this.pid = pid;
      this.#since = since;
      this.#expected = sessions;
      [this.listener, this.control] = fds.takeAll();
      this.#left.add(this.listener).add(this.control);
      return false;
    }
    if (name === "SESSION") {
      const { rings, configPending } = sessionPart.decode(payload);
      const fd = fds.take() as number;
      this.#left.add(fd);
      this.#arriving.push({
        fd,
        rings,
        configPending: configPending !== 0,
        input: new Uint8Array(0),
        inputFds: new DescriptorBag(),
        entries: [],
        config: undefined,
        state: [],
      });
      return false;
    }
    if (name === "END" && this.listener >= 0 && this.#arriving.length === this.#expected) return true;
    const session = this.#arriving.at(-1);
    if (session === undefined) throw new TakeoverError(`${name} came before SESSION`);
    switch (name) {
      case "INPUT":
        session.input = joined([session.input, payload]);
        session.inputFds.append(fds);
        return false;
      case "SETUP":
        session.entries.push(entryOf(payload, fds));
        return false;
      case "CONFIG":
        session.config = payload;
        return false;
      case "STATE":
        session.state.push(payload);
        return false;
    }
    throw new TakeoverError(`${name} came where it does not belong`);
  }

  /** Takes a socket: the caller owns it from here on. Returns it. */
  own(fd: number): number {
    this.#left.delete(fd);
    return fd;
  }

  /**
   * Says that all was taken. From its return on the rings are this process's.
   *
   * @returns how long they have stood still, ms
   * @throws {Error} when the older one does not wait any more; it serves on
   */
  async take(): Promise<number> {
    await this.#dialogue.send("TAKEN");
    this.#closeEntries();
    this.#dialogue.close();
    return Number(clockTime(ClockId.MONOTONIC) - this.#since) / 1e6;
  }

  /** Says that nothing was taken over, and why. Closes what nobody owns yet. */
  async refuse(error: unknown): Promise<void> {
    const text = new TextEncoder().encode(errorText(error)).subarray(0, MAX_PAYLOAD);
    await this.#dialogue.send("REFUSED", text).catch(() => {});
    this.#closeEntries();
    this.#left.forEach(close);
    for (const { inputFds } of this.#arriving) inputFds.close();
    this.#dialogue.close();
  }

  #closeEntries(): void {
    for (const { entries } of this.#arriving) {
      for (const { fds } of entries.splice(0)) fds.forEach(close);
    }
  }
}

/** Connects; -1 when nobody listens. */
function connectTo(path: string): number {
  try {
    return connect(path);
  } catch (error) {
    if (error instanceof OsError && (error.errno === Errno.ENOENT || error.errno === Errno.ECONNREFUSED)) {
      return -1;
    }
    throw error;
  }
}

function entryOf(payload: Uint8Array, fds: DescriptorBag): Entry {
  const { request } = setupHead.decode(payload);
  const name = messageName(frontendMessages, request);
  if (name === undefined) throw new TakeoverError(`SETUP with message ${request}, which there is not`);
  return { name: name as FrontendMessage, payload: payload.subarray(setupHead.size), fds: fds.takeAll() };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
