/**
 * A disk over NBD: what `nbdkit`, `qemu-nbd` or any other NBD server exports is a guest's disk.
 *
 *     nbdkit memory 1G
 *     deno run --allow-ffi --allow-net=localhost:10809 examples/nbd_disk.ts nbd://localhost
 *
 * and the socket is `/tmp/nbd_disk.sock`. A server on a Unix socket takes other permissions:
 *
 *     deno run --allow-ffi --allow-net=unix:/tmp/nbd.sock --allow-read=/tmp/nbd.sock --allow-write=/tmp/nbd.sock \
 *       examples/nbd_disk.ts 'nbd+unix:///?socket=/tmp/nbd.sock'
 *
 * TLS takes `nbds://HOST/NAME` and, unless the system trusts the server's certificate, `--tls-ca=ca.pem` with
 * `--allow-read=ca.pem`.
 * With `--help` it says what else it takes. `vhost-user run examples/nbd_disk.ts --option uri=nbd://localhost` serves the
 * same disk with all options of that command.
 *
 * **What the disk is like** the server says: size, read-only, whether there are flush, trim and write zeroes, the smallest
 * block (which becomes the disk's, up to 4096 bytes) and the longest request (longer ones are split). Requests go out as
 * they come, without waiting for answers, and are answered in the server's order. What the server refuses is an error of that
 * request alone.
 *
 * **When the connection is lost**, or the server does not say anything for `--timeout` seconds while it is asked something,
 * requests wait while the example connects again, and are then asked once more. After `--patience` seconds in vain they fail,
 * and new ones fail at once, until the server is back. It must come back with the same disk: as large at least, and with
 * what it could do before. Meanwhile a guest's reset waits as well.
 *
 * **Limits.** Flush means durable as long as the server does not lose what it has not flushed: when it is the server that has
 * died, with more than its process, NBD has no way to tell. `--write-through` makes each write durable before it is
 * acknowledged, and has no such gap. A request whose answer was lost with the connection is carried out twice, the first time
 * perhaps late. One connection; servers without fixed newstyle negotiation or NBD_OPT_GO (before 2017) are refused.
 *
 * **Why this is written here.** npm's `@vates/nbd-client` 3.6 (ISC, alive) only reads, has no types, no Unix sockets, no
 * block sizes, does not look at TLS certificates, and one failed request fails all. libnbd through FFI (LGPL, alive) has all
 * that is needed, takes no permission but `--allow-ffi`, and copies once less. It was tried: it took three times the processor
 * time for small requests, as a call with a callback leaves the fast path of Deno's FFI. And it must be installed, runs in Deno
 * alone, cannot take a request in several pieces of guest memory, and holds raw addresses of that. The protocol is the
 * [NBD project's](https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, isIP, type Socket } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { parseArgs } from "node:util";
import { LATER, Reactor, serve, type Span } from "@vhost/user";
import { BlkDevice, type Completion, SECTOR, type Storage } from "@vhost/user/devices/blk";

/** What a server says, of all of it (16 bits) and of its export (16 bits). */
const Flag = {
  FIXED_NEWSTYLE: 1,
  READ_ONLY: 2,
  SEND_FLUSH: 4,
  SEND_FUA: 8,
  SEND_TRIM: 32,
  SEND_WRITE_ZEROES: 64,
} as const;
const Option = { STARTTLS: 5, GO: 7, STRUCTURED_REPLY: 8 } as const;
const OptionReply = { ACK: 1, INFO: 3 } as const;
const Info = { EXPORT: 0, BLOCK_SIZE: 3 } as const;
const Type = { READ: 0, WRITE: 1, DISCONNECT: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6 } as const;
const CommandFlag = { FUA: 1, NO_HOLE: 2 } as const;
const ReplyType = { NONE: 0, DATA: 1, HOLE: 2 } as const;
/** Of the kinds of replies; those that have it are errors, known or not. */
const ERROR_BIT = 0x8000;
/** What a reply begins with after its header, bytes, by its kind: a position; with a hole, also a length. */
const DESCRIPTIONS: readonly (number | undefined)[] = [0, 8, 12];
/** The same of an error: its number, and the length of a text. */
const ERROR_SIZE = 6;
const ReplyFlag = { DONE: 1 } as const;

const GREETING = 0x4e42444d41474943n;
const OPTION = 0x49484156454f5054n;
const OPTION_REPLY = 0x3e889045565a9n;
const REQUEST = 0x25609513;
const SIMPLE_REPLY = 0x67446698;
const STRUCTURED_REPLY = 0x668e33ef;

const REQUEST_SIZE = 28;
const DEFAULT_PORT = 10809;
/** The longest payload when the server names none, bytes. */
const DEFAULT_MAXIMUM = 32 * 2 ** 20;
/** The largest block that a disk can have here, bytes. */
const LARGEST_BLOCK = 4096;
/** The longest answer to an option that makes sense, bytes. */
const LONGEST_ANSWER = 65536;
/** How much goes to the socket in one piece, bytes, and how many pieces may be on their way there. */
const PIECE = 256 * 1024;
const PIECES = 4;
/** How long connecting and agreeing may take, ms. */
const HANDSHAKE = 10_000;
/** The longest pause between two attempts to connect, ms. */
const LONGEST_PAUSE = 2000;
/** How often a request is asked again before it is taken for the reason why the connection is lost. */
const MOST_LOSSES = 5;
const ZEROS = new Uint8Array(65536);

/** The errors that the protocol has, by their numbers. */
const ERRORS: Readonly<Record<number, string>> = {
  1: "EPERM",
  5: "EIO",
  12: "ENOMEM",
  22: "EINVAL",
  28: "ENOSPC",
  75: "EOVERFLOW",
  95: "ENOTSUP",
  108: "ESHUTDOWN",
};

/** The refusals of options, by their numbers without the bit that makes them errors. */
const REFUSALS: Readonly<Record<number, string>> = {
  1: "it does not know that",
  2: "its policy forbids that",
  3: "it takes that for invalid",
  4: "its platform has no such thing",
  5: "it wants TLS (nbds:// or nbds+unix://)",
  6: "it has no such export",
  7: "it is shutting down",
  8: "it wants another block size",
  9: "it takes that for too much",
};

/** What can be chosen. */
export interface NbdOptions {
  /** Refuses writes, whatever the server would take. */
  readonly readOnly?: boolean;
  /** Has the server make each write durable before it answers. */
  readonly writeThrough?: boolean;
  /** How long requests wait for a new connection, seconds; 30 by default, 0 for not at all. */
  readonly patience?: number;
  /** How long the server may be silent while it has something to answer, seconds; 60 by default, 0 for as long as it likes. */
  readonly timeout?: number;
  /** PEM: who may have signed the server's certificate, in place of who the system trusts. */
  readonly ca?: string;
  /** PEM: our own certificate, and its key. */
  readonly cert?: string;
  readonly key?: string;
  /** Where to tell what goes wrong; standard error output by default. */
  readonly log?: (text: string) => void;
}

/** Where an export is. */
interface Target {
  readonly host: string;
  readonly port: number;
  /** Of a Unix socket, in place of host and port. */
  readonly path?: string;
  readonly tls: boolean;
  readonly exportName: string;
}

/** What an export is like. */
interface Export {
  /** Bytes. */
  readonly size: number;
  readonly flags: number;
  /** Bytes that requests must be aligned to, and that one payload has at most. */
  readonly minimum: number;
  readonly maximum: number;
}

/** Reads an NBD URI: `nbd://host[:port][/export]`, `nbd+unix:///[export]?socket=PATH`, and the same with `nbds`. */
export function parseNbdUri(uri: string): Target {
  const url = URL.canParse(uri) ? new URL(uri) : undefined;
  const match = /^(nbds?)(\+unix)?:$/.exec(url?.protocol ?? "");
  const path = url?.searchParams.get("socket") ?? undefined;
  const unix = match?.[2] !== undefined;
  if (
    url === undefined || match === null || unix !== (path !== undefined) || unix === (url.hostname !== "")
  ) {
    throw new TypeError(
      `an export must be nbd://HOST[:PORT][/NAME], nbd+unix:///[NAME]?socket=PATH, or that with nbds for TLS; got ${uri}`,
    );
  }
  return {
    // An IPv6 address has brackets in a URI alone.
    host: url.hostname.replace(/^\[(.*)\]$/, "$1") || "localhost",
    port: Number(url.port || DEFAULT_PORT),
    path,
    tls: match[1] === "nbds",
    exportName: decodeURIComponent(url.pathname.replace(/^\//, "")),
  };
}

/** What comes in: taken piece by piece while both sides agree, and afterwards handed on as it comes. */
class Inbox {
  #kept = Buffer.alloc(0);
  #ended: Error | undefined;
  #wake = (): void => {};
  #consumer: ((bytes: Uint8Array) => void) | undefined;

  get byteLength(): number {
    return this.#kept.length;
  }

  /** Takes in bytes, which are the caller's again afterwards. */
  push(bytes: Uint8Array): void {
    if (this.#consumer !== undefined) return this.#consumer(bytes);
    if (this.#kept.length > 2 * LONGEST_ANSWER) return this.end(new Error("the server says too much"));
    this.#kept = Buffer.concat([this.#kept, bytes]);
    this.#wake();
  }

  end(error: Error): void {
    this.#ended ??= error;
    this.#wake();
  }

  /** Takes bytes out, once there are so many. */
  async take(length: number): Promise<Buffer> {
    while (this.#kept.length < length) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const bytes = this.#kept.subarray(0, length);
    this.#kept = this.#kept.subarray(length);
    return bytes;
  }

  /** From now on, everything goes to somebody. */
  handTo(consumer: (bytes: Uint8Array) => void): void {
    this.#consumer = consumer;
    if (this.#kept.length > 0) consumer(this.#kept);
  }
}

/** A socket, and what comes in by it. */
interface Wire {
  readonly socket: Socket;
  readonly inbox: Inbox;
}

/** What an option was answered with. */
interface Answer {
  readonly type: number;
  readonly data: Buffer;
}

async function ask({ socket, inbox }: Wire, option: number, data = Buffer.alloc(0)): Promise<Answer> {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  socket.write(Buffer.concat([head, data]));
  return await readAnswer(inbox, option);
}

async function readAnswer(inbox: Inbox, option: number): Promise<Answer> {
  const head = await inbox.take(20);
  const length = head.readUInt32BE(16);
  if (head.readBigUInt64BE(0) !== OPTION_REPLY || head.readUInt32BE(8) !== option) {
    throw new Error("the server does not answer what it was asked");
  }
  if (length > LONGEST_ANSWER) throw new Error(`the server answers an option with ${length} bytes`);
  return { type: head.readUInt32BE(12), data: await inbox.take(length) };
}

/** Why an option was refused, for people. */
function refusal({ type, data }: Answer): string {
  const why = REFUSALS[type & 0x7fff_ffff] ?? `it answers ${type}`;
  return data.length === 0 ? why : `${why}: ${data.toString("utf8")}`;
}

async function encrypted(wire: Wire, { host, path }: Target, options: NbdOptions): Promise<Wire> {
  const { socket } = wire;
  const answer = await ask(wire, Option.STARTTLS);
  if (answer.type !== OptionReply.ACK) throw new Error(`the server does not begin TLS: ${refusal(answer)}`);
  // What came before the encryption may be anybody's.
  if (wire.inbox.byteLength > 0) throw new Error("the server goes on without TLS");
  socket.removeAllListeners("data");
  const { ca, cert, key } = options;
  const name = path === undefined ? host : "localhost";
  const tls = connectTls({ socket, ca, cert, key, host: name, servername: isIP(name) ? "" : name });
  await once(tls, "secureConnect");
  return wireOf(tls);
}

/** Has what comes in by a socket kept. */
function wireOf(socket: Socket, inbox?: Inbox): Wire {
  const wire = { socket, inbox: inbox ?? new Inbox() };
  if (inbox === undefined) socket.on("data", (bytes: Uint8Array) => wire.inbox.push(bytes));
  // An error is followed by this.
  socket.on("error", () => {});
  socket.once("close", () => wire.inbox.end(socket.errored ?? new Error("the server has hung up")));
  return wire;
}

/** Connects a socket. */
function wireTo({ path, host, port, tls }: Target): Wire {
  const place = path === undefined ? { host, port } : { path };
  if (tls) return wireOf(connect(place));
  // Into one buffer, again and again: as a stream, it would take three times as long.
  const inbox = new Inbox();
  const onread = {
    buffer: Buffer.alloc(PIECE),
    callback: (length: number, buffer: Uint8Array): boolean => {
      inbox.push(buffer.subarray(0, length));
      return true;
    },
  };
  return wireOf(connect({ ...place, onread }), inbox);
}

/** Agrees with a server on an export, by what NBD calls fixed newstyle negotiation. */
async function agree(plain: Wire, target: Target, options: NbdOptions): Promise<[Wire, Export]> {
  const greeting = await plain.inbox.take(18);
  const flags = greeting.readUInt16BE(16);
  if (greeting.readBigUInt64BE(0) !== GREETING) throw new Error("this is no NBD server");
  if (greeting.readBigUInt64BE(8) !== OPTION || (flags & Flag.FIXED_NEWSTYLE) === 0) {
    throw new Error("the server only knows the negotiation of before 2011");
  }
  const ours = Buffer.alloc(4);
  ours.writeUInt32BE(Flag.FIXED_NEWSTYLE);
  plain.socket.write(ours);
  const wire = target.tls ? await encrypted(plain, target, options) : plain;

  // Whether the server takes it shows in its replies.
  await ask(wire, Option.STRUCTURED_REPLY);

  const name = Buffer.from(target.exportName);
  const go = Buffer.alloc(4 + name.length + 4);
  go.writeUInt32BE(name.length, 0);
  go.set(name, 4);
  go.writeUInt16BE(1, 4 + name.length);
  go.writeUInt16BE(Info.BLOCK_SIZE, 6 + name.length);
  const found = { size: -1, flags: 0, minimum: 1, maximum: DEFAULT_MAXIMUM };
  for (let answer = await ask(wire, Option.GO, go); answer.type !== OptionReply.ACK;) {
    const { type, data } = answer;
    if (type !== OptionReply.INFO) {
      throw new Error(`the server does not give the export '${target.exportName}': ${refusal(answer)}`);
    }
    if (data.readUInt16BE(0) === Info.EXPORT) {
      found.size = Number(data.readBigUInt64BE(2));
      found.flags = data.readUInt16BE(10);
    } else if (data.readUInt16BE(0) === Info.BLOCK_SIZE) {
      found.minimum = data.readUInt32BE(2);
      found.maximum = data.readUInt32BE(10);
    }
    answer = await readAnswer(wire.inbox, Option.GO);
  }
  return [wire, checked(found)];
}

function checked({ size, flags, minimum, maximum }: Export): Export {
  if (!(size >= 0 && size <= Number.MAX_SAFE_INTEGER)) throw new Error(`the server names the size ${size}`);
  const block = Math.max(minimum, SECTOR);
  if (minimum === 0 || (minimum & (minimum - 1)) !== 0 || maximum < block) {
    throw new Error(`the server names the block sizes ${minimum} to ${maximum}`);
  }
  if (block > LARGEST_BLOCK) {
    throw new Error(`the server wants blocks of ${block} bytes; a disk has at most ${LARGEST_BLOCK}`);
  }
  // A payload has to be a whole number of blocks.
  return { size, flags, minimum, maximum: Math.floor(maximum / block) * block };
}

/** Connects and agrees. */
async function reach(target: Target, options: NbdOptions): Promise<[Wire, Export]> {
  const wire = wireTo(target);
  const { socket } = wire;
  const late = new Error(`no agreement within ${HANDSHAKE / 1000} seconds`);
  const timer = setTimeout(() => socket.destroy(late), HANDSHAKE);
  try {
    socket.setNoDelay(true);
    return await agree(wire, target, options);
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** What the server is asked: a request, or a part of one that is too long for it. Kept, and used again. */
class Command {
  readonly index: number;
  /** Differs each time, so that no late answer counts. */
  generation = 0;
  type = 0;
  flags = 0;
  position = 0;
  length = 0;
  data: Span | undefined;
  /** Of its first byte in `data`. */
  offset = 0;
  /** Bytes of its payload that have gone out or come in. */
  moved = 0;
  error: Error | undefined;
  /** How many connections were lost while it was under way. */
  losses = 0;
  busy = false;
  /** The first part of its request, which counts the parts. */
  first: Command = this;
  parts = 0;
  completion: Completion | undefined;

  constructor(index: number) {
    this.index = index;
  }

  /** For people. */
  get text(): string {
    const name = Object.entries(Type).find(([, type]) => type === this.type)?.[0].toLowerCase() ?? this.type;
    return `${name} of ${this.length} bytes at ${this.position}`;
  }
}

/** What is read next: the begin of a reply, the rest of a structured one, what describes its payload, or data. */
type State = "reply" | "structured" | "description" | "data";

/** A connection to a server on which there is an agreement. */
class Link {
  readonly socket: Socket;
  /** When something last came in. */
  heard = performance.now();
  readonly #storage: NbdStorage;
  /** Commands that have not gone out, from `#next` on. */
  #waiting: Command[] = [];
  #next = 0;
  #scheduled = false;
  readonly #pieces: Buffer[] = Array.from({ length: PIECES }, () => Buffer.alloc(PIECE));
  #state: State = "reply";
  readonly #header = Buffer.alloc(32);
  #have = 0;
  #want = 16;
  /** The command that is answered, and the structured reply to it. */
  #command: Command | undefined;
  #flags = 0;
  #replyType = 0;
  #replyLength = 0;
  /** Bytes of the payload to come, and where they go in the command's data. */
  #left = 0;
  #at = 0;

  constructor({ socket, inbox }: Wire, storage: NbdStorage) {
    this.socket = socket;
    this.#storage = storage;
    socket.once("close", () => storage.lost(this, socket.errored ?? new Error("the server has hung up")));
    inbox.handTo((bytes) => {
      this.heard = performance.now();
      try {
        if (!socket.destroyed) this.#take(bytes);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
  }

  /** Sends a command, together with others of the same turn. */
  send(command: Command): void {
    command.moved = 0;
    this.#waiting.push(command);
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  /** Hands to the socket what it has room for: guest memory is copied when it goes out, and no sooner. */
  #pump(): void {
    while (this.#next < this.#waiting.length && !this.socket.destroyed) {
      const piece = this.#pieces.pop();
      if (piece === undefined) return;
      const used = this.#fill(piece);
      this.socket.write(piece.subarray(0, used), () => {
        this.#pieces.push(piece);
        this.#pump();
      });
    }
    this.#waiting.length = this.#next = 0;
  }

  #fill(piece: Buffer): number {
    let used = 0;
    for (; this.#next < this.#waiting.length; this.#next++) {
      const command = this.#waiting[this.#next];
      if (command.moved === 0) {
        if (used + REQUEST_SIZE > PIECE) break;
        writeRequest(piece, used, command);
        used += REQUEST_SIZE;
      }
      if (command.type !== Type.WRITE || command.data === undefined) continue;
      const length = Math.min(PIECE - used, command.length - command.moved);
      command.data.copyTo(piece.subarray(used, used + length), command.offset + command.moved);
      used += length;
      command.moved += length;
      if (command.moved < command.length) break;
    }
    return used;
  }

  #take(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#state === "data") {
        const length = Math.min(this.#left, bytes.length - at);
        this.#command?.data?.copyFrom(bytes.subarray(at, at + length), this.#at);
        this.#at += length;
        this.#left -= length;
        at += length;
        if (this.#left === 0) this.#chunkEnds();
        continue;
      }
      const length = Math.min(this.#want - this.#have, bytes.length - at);
      for (let i = 0; i < length; i++) this.#header[this.#have + i] = bytes[at + i];
      this.#have += length;
      at += length;
      if (this.#have === this.#want) this.#headerEnds();
    }
  }

  #expect(state: State, bytes: number): void {
    this.#state = state;
    this.#want = bytes;
  }

  #headerEnds(): void {
    const header = this.#header;
    if (this.#state === "reply") {
      if (header.readUInt32BE(0) === STRUCTURED_REPLY) return this.#expect("structured", 20);
      if (header.readUInt32BE(0) !== SIMPLE_REPLY) throw new Error("the server sends what is no reply");
      const command = this.#command = this.#find(header.readUInt32BE(8), header.readUInt32BE(12));
      const error = header.readUInt32BE(4);
      if (error !== 0) command.error = serverError(error);
      this.#flags = ReplyFlag.DONE;
      if (command.type !== Type.READ || error !== 0) return this.#chunkEnds();
      return this.#data(command, 0, command.length);
    }
    if (this.#state === "structured") {
      this.#flags = header.readUInt16BE(4);
      this.#replyType = header.readUInt16BE(6);
      this.#command = this.#find(header.readUInt32BE(8), header.readUInt32BE(12));
      this.#replyLength = header.readUInt32BE(16);
      const size = this.#replyType > ERROR_BIT ? ERROR_SIZE : DESCRIPTIONS[this.#replyType];
      const exact = this.#replyType !== ReplyType.DATA && this.#replyType < ERROR_BIT;
      if (size === undefined || this.#replyLength < size || (exact && this.#replyLength !== size)) {
        throw new Error(
          `the server sends a reply of kind ${this.#replyType} with ${this.#replyLength} bytes`,
        );
      }
      if (size === 0) return this.#chunkEnds();
      this.#have = 0;
      return this.#expect("description", size);
    }
    const command = this.#command as Command;
    if (this.#replyType > ERROR_BIT) {
      command.error ??= serverError(header.readUInt32BE(0));
      // The server's own words, and the place where it failed.
      return this.#skip(this.#replyLength - ERROR_SIZE);
    }
    const hole = this.#replyType === ReplyType.HOLE;
    const length = hole ? header.readUInt32BE(8) : this.#replyLength - 8;
    const start = header.readUInt32BE(0) * 2 ** 32 + header.readUInt32BE(4) - command.position;
    if (hole) {
      this.#check(command, start, length);
      for (let done = 0; done < length; done += ZEROS.length) {
        command.data?.copyFrom(ZEROS.subarray(0, length - done), command.offset + start + done);
      }
      return this.#chunkEnds();
    }
    this.#data(command, start, length);
  }

  #find(generation: number, index: number): Command {
    const command = this.#storage.commands[index];
    if (command === undefined || !command.busy || command.generation !== generation) {
      throw new Error("the server answers what it was not asked");
    }
    return command;
  }

  #check(command: Command, start: number, length: number): void {
    command.moved += length;
    const within = start >= 0 && start + length <= command.length && command.moved <= command.length;
    if (command.type !== Type.READ || !within || length === 0) {
      throw new Error(`the server answers a ${command.text} with ${length} bytes from ${start} on`);
    }
  }

  /** Data comes in, `start` bytes into the command. */
  #data(command: Command, start: number, length: number): void {
    this.#check(command, start, length);
    this.#at = command.offset + start;
    this.#left = length;
    this.#state = "data";
  }

  /** Bytes come in that nobody wants. */
  #skip(length: number): void {
    if (length === 0) return this.#chunkEnds();
    if (length > LONGEST_ANSWER) throw new Error(`the server sends an error text of ${length} bytes`);
    // Past the end of any data: nothing is copied.
    this.#at = Infinity;
    this.#left = length;
    this.#state = "data";
  }

  #chunkEnds(): void {
    const command = this.#command as Command;
    this.#command = undefined;
    this.#have = 0;
    this.#expect("reply", 16);
    if ((this.#flags & ReplyFlag.DONE) === 0) return;
    if (command.type === Type.READ && command.error === undefined && command.moved !== command.length) {
      throw new Error(`the server answers a ${command.text} with ${command.moved} bytes`);
    }
    this.#storage.answered(command);
  }
}

function writeRequest(target: Buffer, at: number, command: Command): void {
  target.writeUInt32BE(REQUEST, at);
  target.writeUInt16BE(command.flags, at + 4);
  target.writeUInt16BE(command.type, at + 6);
  target.writeUInt32BE(command.generation, at + 8);
  target.writeUInt32BE(command.index, at + 12);
  target.writeUInt32BE(Math.floor(command.position / 2 ** 32), at + 16);
  target.writeUInt32BE(command.position % 2 ** 32, at + 20);
  target.writeUInt32BE(command.length, at + 24);
}

/** An error's text; there is none when several addresses were tried in vain. */
function reason(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  return message || code || String(error);
}

function serverError(number: number): Error {
  return new Error(`the server says ${ERRORS[number] ?? `error ${number}`}`);
}

/** Why an export cannot go on as the disk that it was; `undefined` when it can. */
function changed(before: Export, now: Export): string | undefined {
  if (now.size < before.size) return `it has ${now.size} bytes in place of ${before.size}`;
  if (now.minimum > Math.max(before.minimum, SECTOR)) return `it has blocks of ${now.minimum} bytes`;
  if ((now.flags & Flag.READ_ONLY) > (before.flags & Flag.READ_ONLY)) return "it is read-only";
  const lacks = before.flags & ~now.flags & ~Flag.READ_ONLY;
  const [name] = Object.entries(Flag).find(([, flag]) => (lacks & flag) !== 0) ?? [];
  return name === undefined ? undefined : `it has no ${name} any more`;
}

/** An export of an NBD server. */
export class NbdStorage implements Storage {
  readonly size: number;
  readonly readOnly: boolean;
  /** Bytes of a block. */
  readonly blockSize: number;
  discard?: (position: number, length: number) => Promise<void>;
  writeZeroes?: (position: number, length: number, mayUnmap: boolean) => Promise<void>;
  /** All that there ever were, by their indices. */
  readonly commands: Command[] = [];
  readonly #target: Target;
  readonly #options: NbdOptions;
  readonly #patience: number;
  readonly #timeout: number;
  readonly #export: Export;
  readonly #writeFlags: number;
  readonly #free: Command[] = [];
  readonly #watch: ReturnType<typeof setInterval>;
  #link: Link | undefined;
  #closed = false;
  /** When requests stop waiting for a connection; ms. Stands until one has proved itself by an answer. */
  #deadline = Infinity;
  /** When an error was last told, and how many were not since. */
  #told = -Infinity;
  #untold = 0;

  /**
   * Connects to an export.
   *
   * @throws {Error} when it cannot be reached, or cannot be a disk
   */
  static async open(uri: string, options: NbdOptions = {}): Promise<NbdStorage> {
    const target = parseNbdUri(uri);
    try {
      const [wire, found] = await reach(target, options);
      return new NbdStorage(target, options, wire, found);
    } catch (error) {
      throw new Error(`${uri}: ${reason(error)}`, { cause: error });
    }
  }

  private constructor(target: Target, options: NbdOptions, wire: Wire, found: Export) {
    const { patience = 30, timeout = 60, readOnly = false, writeThrough = false } = options;
    const has = (flag: number): boolean => (found.flags & flag) !== 0;
    this.#target = target;
    this.#options = options;
    this.#patience = patience * 1000;
    this.#timeout = timeout === 0 ? Infinity : timeout * 1000;
    this.#export = found;
    this.blockSize = Math.max(SECTOR, found.minimum);
    this.size = Math.floor(found.size / this.blockSize) * this.blockSize;
    this.readOnly = readOnly || has(Flag.READ_ONLY);
    if (writeThrough && !has(Flag.SEND_FUA)) {
      wire.socket.destroy();
      throw new Error("the server cannot make single writes durable (FUA), which write-through needs");
    }
    // What cannot be flushed later must be durable at once.
    this.#writeFlags = writeThrough || (has(Flag.SEND_FUA) && !has(Flag.SEND_FLUSH)) ? CommandFlag.FUA : 0;
    if (!this.readOnly && !has(Flag.SEND_FLUSH) && !has(Flag.SEND_FUA)) {
      this.#log(
        "the server has no flush: when its machine dies, writes may be lost that the guest has flushed",
      );
    }
    if (has(Flag.SEND_TRIM)) this.discard = (position, length) => this.#trim(position, length);
    if (has(Flag.SEND_WRITE_ZEROES)) {
      this.writeZeroes = (position, length, mayUnmap) =>
        this.#promise(
          Type.WRITE_ZEROES,
          this.#writeFlags | (mayUnmap ? 0 : CommandFlag.NO_HOLE),
          position,
          length,
        );
    }
    this.#link = new Link(wire, this);
    this.#watch = setInterval(() => this.#look(), 250);
    this.#watch.unref();
  }

  read(data: Span, position: number, completion: Completion): void | typeof LATER {
    if (data.byteLength === 0) return;
    return this.#request(Type.READ, 0, data, position, data.byteLength, completion);
  }

  write(data: Span, position: number, completion: Completion): void | typeof LATER {
    if (data.byteLength === 0) return;
    return this.#request(Type.WRITE, this.#writeFlags, data, position, data.byteLength, completion);
  }

  flush(completion: Completion): void | typeof LATER {
    if ((this.#export.flags & Flag.SEND_FLUSH) === 0) return;
    return this.#request(Type.FLUSH, 0, undefined, 0, 0, completion);
  }

  /** Only whole blocks: the guest may have meant parts of others, which then stay as they are. */
  async #trim(position: number, length: number): Promise<void> {
    const start = Math.ceil(position / this.blockSize) * this.blockSize;
    const end = Math.floor((position + length) / this.blockSize) * this.blockSize;
    if (end > start) await this.#promise(Type.TRIM, this.#writeFlags, start, end - start);
  }

  #promise(type: number, flags: number, position: number, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: unknown): void => error === undefined ? resolve() : reject(error);
      this.#request(type, flags, undefined, position, length, { done });
    });
  }

  #request(
    type: number,
    flags: number,
    data: Span | undefined,
    position: number,
    length: number,
    completion: Completion,
  ): typeof LATER {
    if (this.#closed || (this.#link === undefined && performance.now() >= this.#deadline)) {
      throw new Error("there is no connection");
    }
    if (position % this.blockSize !== 0 || length % this.blockSize !== 0) {
      throw new RangeError(
        `${length} bytes at ${position}: the server has blocks of ${this.blockSize} bytes`,
      );
    }
    // Only payloads are limited.
    const most = data === undefined ? Infinity : this.#export.maximum;
    // What completes is not seen by the toolkit's own wait: it has to give the event loop its turn.
    Reactor.shared().deferred();
    let first: Command | undefined;
    for (let offset = 0; first === undefined || offset < length; offset += most) {
      const command = this.#free.pop() ?? this.#newCommand();
      first ??= command;
      first.parts++;
      command.type = type;
      command.flags = flags;
      command.position = position + offset;
      command.length = Math.min(most, length - offset);
      command.data = data;
      command.offset = offset;
      command.error = undefined;
      command.losses = 0;
      command.first = first;
      command.completion = completion;
      command.busy = true;
      this.#link?.send(command);
    }
    return LATER;
  }

  #newCommand(): Command {
    const command = new Command(this.commands.length);
    this.commands.push(command);
    return command;
  }

  /** The server has answered: the connection is as good as one can be. */
  answered(command: Command): void {
    this.#deadline = Infinity;
    if (command.error !== undefined) this.#tell(`${command.text}: ${command.error.message}`);
    this.#complete(command);
  }

  #complete(command: Command): void {
    const { first, error } = command;
    command.busy = false;
    command.generation = (command.generation + 1) >>> 0;
    command.data = undefined;
    first.error ??= error;
    if (command !== first) this.#free.push(command);
    if (--first.parts > 0) return;
    const { completion } = first;
    first.completion = undefined;
    this.#free.push(first);
    Reactor.shared().completed();
    completion?.done(first.error);
  }

  /** A connection is gone. */
  lost(link: Link, error: Error): void {
    if (link !== this.#link) return;
    this.#link = undefined;
    if (this.#closed) return this.#fail(() => true, "the disk is closed");
    this.#log(`connection lost: ${reason(error)}`);
    if (this.#deadline === Infinity) this.#deadline = performance.now() + this.#patience;
    for (const command of this.commands) if (command.busy) command.losses++;
    this.#fail(
      ({ losses }) => losses >= MOST_LOSSES,
      "the connection was lost each time that this was asked",
    );
    this.#look();
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    let said = "";
    for (let pause = 0; !this.#closed; pause = Math.min(LONGEST_PAUSE, 2 * pause + 50)) {
      await sleep(pause, undefined, { ref: false });
      try {
        const [wire, found] = await reach(this.#target, this.#options);
        const why = changed(this.#export, found);
        if (why !== undefined || this.#closed) {
          wire.socket.destroy();
          throw new Error(`the server has another disk now: ${why}`);
        }
        return this.#connected(new Link(wire, this));
      } catch (error) {
        const why = reason(error);
        if (why !== said && !this.#closed) this.#log(`no connection: ${why}`);
        said = why;
      }
    }
  }

  #connected(link: Link): void {
    this.#log("connected again");
    this.#link = link;
    let asked = false;
    for (const command of this.commands) {
      if (!command.busy) continue;
      command.error = undefined;
      link.send(command);
      asked = true;
    }
    // With nothing to answer, nothing will prove it.
    if (!asked) this.#deadline = Infinity;
  }

  /** Looks at what has waited too long. */
  #look(): void {
    const now = performance.now();
    const busy = this.commands.some((command) => command.busy);
    const link = this.#link;
    if (link === undefined) {
      if (busy && now >= this.#deadline) this.#fail(() => true, "no connection in time");
      return;
    }
    // Silence counts from when there is something to answer.
    if (!busy) link.heard = now;
    else if (now - link.heard > this.#timeout) {
      link.socket.destroy(new Error(`no answer for ${this.#timeout / 1000} seconds`));
    }
  }

  #fail(which: (command: Command) => boolean, why: string): void {
    for (const command of this.commands) {
      if (!command.busy || !which(command)) continue;
      command.error = new Error(why);
      this.#tell(`${command.text}: ${why}`);
      this.#complete(command);
    }
  }

  /** Tells of a failed request, once a second at the most. */
  #tell(text: string): void {
    const now = performance.now();
    if (now - this.#told < 1000) {
      this.#untold++;
      return;
    }
    const more = this.#untold === 0 ? "" : ` (and ${this.#untold} more since the last time)`;
    this.#told = now;
    this.#untold = 0;
    this.#log(text + more);
  }

  #log(text: string): void {
    (this.#options.log ?? console.error)(`nbd_disk: ${text}`);
  }

  /** Says goodbye to the server. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#watch);
    const link = this.#link;
    if (link === undefined) return;
    const command = this.#newCommand();
    command.type = Type.DISCONNECT;
    const goodbye = Buffer.alloc(REQUEST_SIZE);
    writeRequest(goodbye, 0, command);
    link.socket.end(goodbye);
  }
}

/** A disk over an export; for `vhost-user run examples/nbd_disk.ts --option uri=URI`, too. */
export default async function nbdDisk(
  options: NbdOptions & { uri: string; id?: string },
): Promise<BlkDevice> {
  const storage = await NbdStorage.open(options.uri, options);
  return new BlkDevice({ storage, blockSize: storage.blockSize, id: options.id ?? "nbd" });
}

const HELP = `Usage: deno run --allow-ffi --allow-net=HOST:PORT examples/nbd_disk.ts [options] URI

Serves an export of an NBD server as a disk for a virtual machine.

  URI                  nbd://HOST[:PORT][/NAME], nbd+unix:///[NAME]?socket=PATH; nbds for TLS
  --socket-path=PATH   Where QEMU and other front-ends connect; /tmp/nbd_disk.sock by default.
  --read-only          Take no writes, whatever the server would.
  --write-through      Have the server make each write durable before it is acknowledged.
  --patience=SECONDS   How long requests wait for a lost connection to come back; 30 by default.
  --timeout=SECONDS    How long the server may be silent when asked something; 60 by default, 0: ever.
  --tls-ca=FILE        Who may have signed the server's certificate (PEM).
  --tls-cert=FILE      Our own certificate (PEM), and
  --tls-key=FILE         its key.
  --id=TEXT            The disk's serial number, up to 20 characters; nbd by default.
  --help               Print this text.

A server on a Unix socket takes --allow-net=unix:PATH, --allow-read=PATH and --allow-write=PATH; files for TLS take
--allow-read=FILE.

Examples:
  deno run --allow-ffi --allow-net=localhost:10809 examples/nbd_disk.ts nbd://localhost
  deno run --allow-ffi --allow-net=unix:/tmp/nbd.sock --allow-read=/tmp/nbd.sock --allow-write=/tmp/nbd.sock \\
    examples/nbd_disk.ts 'nbd+unix:///?socket=/tmp/nbd.sock'`;

/** Why the command line cannot be followed. */
class UsageError extends Error {}

function seconds(name: string, text: string): number {
  const number = Number(text);
  if (text.trim() === "" || !(number >= 0 && number <= 1e6)) {
    throw new UsageError(`--${name} must be a number of seconds, got '${text}'`);
  }
  return number;
}

function commandLine(): ReturnType<typeof parse> {
  try {
    return parse();
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

// deno-lint-ignore explicit-function-return-type
function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      "socket-path": { type: "string", default: "/tmp/nbd_disk.sock" },
      "read-only": { type: "boolean", default: false },
      "write-through": { type: "boolean", default: false },
      patience: { type: "string", default: "30" },
      timeout: { type: "string", default: "60" },
      "tls-ca": { type: "string" },
      "tls-cert": { type: "string" },
      "tls-key": { type: "string" },
      id: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
}

async function main(): Promise<void> {
  const { values, positionals } = commandLine();
  if (values.help) return console.log(HELP);
  if (positionals.length !== 1) throw new UsageError("give one URI; see --help");
  const pem = (file: string | undefined): string | undefined => file && readFileSync(file, "utf8");
  const disk = await nbdDisk({
    uri: positionals[0],
    id: values.id,
    readOnly: values["read-only"],
    writeThrough: values["write-through"],
    patience: seconds("patience", values.patience),
    timeout: seconds("timeout", values.timeout),
    ca: pem(values["tls-ca"]),
    cert: pem(values["tls-cert"]),
    key: pem(values["tls-key"]),
  });
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  const socketPath = values["socket-path"];
  const server = await serve(disk, { socketPath, signal: stop.signal });
  console.log(
    `${disk.readOnly ? "a read-only disk" : "a disk"} of ${disk.storage.size} bytes on ${socketPath}`,
  );
  await server.finished;
  disk.close();
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`nbd_disk: ${(error as Error).message}`);
    process.exit(error instanceof UsageError ? 2 : 1);
  }
}
