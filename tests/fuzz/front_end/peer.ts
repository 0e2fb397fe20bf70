/**
 * One hostile front-end: its socket and its back-end channels.
 *
 * @module
 */

import { libc } from "../../../ffi/deno.ts";
import { close } from "../../../ffi/fd.ts";
import { Native } from "../../../ffi/native.ts";
import { OsError } from "../../../ffi/os_error.ts";
import {
  connect,
  MAX_DESCRIPTORS,
  receive,
  send,
  shutdownReceiving,
  shutdownSending,
  socketPair,
} from "../../../ffi/socket.ts";
import { HeaderFlag, VERSION } from "../../../src/protocol/mod.ts";
import { message } from "./messages.ts";
import { CHANNEL, type DescriptorName, GONE, type Props } from "./props.ts";
import type { AnswerKind } from "./steps.ts";

const ROOM = 1 << 16;
const outgoing = new Native(ROOM);
const incoming = new Native(ROOM);
const queued = new Native(4);
/** `ioctl(2)`: what a socket's peer has not taken yet, bytes. */
const SIOCOUTQ = 0x5411n;

/** A front-end that says what it is told to. Nothing that happens to its connection is an error. */
export class Peer {
  /** Where it was connected, in the order of connections. */
  readonly fd: number;
  readonly #props: Props;
  readonly #channels: number[] = [];
  #pending = 0;
  #pendingFds: number[] = [];
  #opened: number[] = [];
  #over = false;
  #dropped = false;

  /** Connects. */
  constructor(path: string, props: Props) {
    this.fd = connect(path);
    this.#props = props;
  }

  /** Whether the other side has hung up. */
  get dropped(): boolean {
    return this.#dropped;
  }

  /** Sends a message, together with those after it that have no descriptors. */
  say(bytes: Uint8Array, fds: readonly DescriptorName[]): void {
    if (this.#over) return;
    if (fds.length > 0 || this.#pending + bytes.length > ROOM) this.flush();
    for (const name of fds.slice(0, MAX_DESCRIPTORS)) this.#pendingFds.push(this.#descriptor(name));
    outgoing.bytes.set(bytes, this.#pending);
    this.#pending += bytes.length;
  }

  /** What was said goes out. As the room for it is shared, it must before another says something. */
  flush(): void {
    if (this.#pending > 0 && !this.#over) this.#send(this.#pending, this.#pendingFds);
    this.#pending = 0;
    this.#pendingFds = [];
    for (const fd of this.#opened) close(fd);
    this.#opened = [];
  }

  /** Sends a message in pieces. */
  dribble(bytes: Uint8Array, fds: readonly DescriptorName[], piece: number): void {
    this.flush();
    for (let at = 0; at < bytes.length; at += piece) {
      this.say(bytes.subarray(at, at + piece), fds);
      this.flush();
    }
  }

  #send(length: number, fds: readonly number[]): void {
    try {
      const sent = send(this.fd, outgoing.address, length, fds);
      // A full buffer cuts the stream anywhere, which is what a hostile front-end may do as well.
      if (sent !== length) shutdownSending(this.fd);
      this.#over = sent !== length;
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#over = this.#dropped = true;
    }
  }

  #descriptor(name: DescriptorName): number {
    if (name !== CHANNEL && name !== GONE) return this.#props.fds[name];
    const [given, kept] = socketPair();
    this.#opened.push(given);
    if (name === CHANNEL) this.#channels.push(kept);
    else close(kept);
    return given;
  }

  /** Whether everything that was sent was taken, or nobody is there to take it. */
  get heard(): boolean {
    return this.#over || libc.ioctl(this.fd, SIOCOUTQ, queued.address) < 0 || queued.get32(0) === 0;
  }

  /** Takes the answers, and closes what descriptors come along. */
  read(): void {
    take(this.fd);
  }

  /** Answers all that has come on the channels. */
  answer(how: AnswerKind): void {
    for (const fd of this.#channels) {
      const length = take(fd);
      for (let at = 0; at + 12 <= length;) {
        const [id, flags, size] = [0, 4, 8].map((offset) => incoming.view.getUint32(at + offset, true));
        at += 12 + size;
        if ((flags & HeaderFlag.NEED_REPLY) !== 0 || how === "noise") this.#reply(fd, id, how);
      }
    }
  }

  #reply(fd: number, id: number, how: AnswerKind): void {
    const reply = VERSION | HeaderFlag.REPLY;
    const zero = new Uint8Array(8);
    const write = (bytes: Uint8Array, fds: readonly number[] = []): void => {
      outgoing.bytes.set(bytes);
      try {
        send(fd, outgoing.address, bytes.length, fds);
      } catch (error) {
        if (!(error instanceof OsError)) throw error;
      }
    };
    switch (how) {
      case "right":
        return write(message(id, zero, reply));
      case "failed":
        return write(message(id, new Uint8Array(8).fill(1), reply));
      case "empty":
        return write(message(id, new Uint8Array(0), reply));
      case "long":
        return write(message(id, new Uint8Array(4096), reply));
      case "with a descriptor":
        return write(message(id, zero, reply), [this.#props.fds.zeros]);
      case "another id":
        return write(message(id + 1, zero, reply));
      case "no reply":
        return write(message(id, zero, VERSION));
      case "noise":
        return write(this.#props.noise);
      case "twice":
        write(message(id, zero, reply));
        return write(message(id, zero, reply));
      case "gone":
        shutdownSending(fd);
        return shutdownReceiving(fd);
    }
  }

  /** Sends nothing more. */
  hush(): void {
    this.flush();
    shutdownSending(this.fd);
    this.#over = true;
  }

  /** Reads nothing more. */
  deafen(): void {
    this.flush();
    shutdownReceiving(this.fd);
  }

  /** Goes. What it has not read tells the other side so at once. */
  leave(unread: boolean): void {
    this.flush();
    if (!unread) this.read();
    close(this.fd);
    for (const fd of this.#channels.splice(0)) close(fd);
  }
}

/** Takes what is there, and closes what descriptors come along. Returns the bytes that are in {@link incoming}. */
function take(fd: number): number {
  let last = 0;
  try {
    for (;;) {
      const { length, fds } = receive(fd, incoming.address, ROOM);
      fds.close();
      if (length <= 0) return last;
      last = length;
    }
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    return last;
  }
}
