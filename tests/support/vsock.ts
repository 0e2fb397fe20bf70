import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { close, readBytes } from "../../ffi/fd.ts";
import { removeFile } from "../../ffi/file.ts";
import { Native } from "../../ffi/native.ts";
import { accept as acceptFd, connect as connectFd, listen as listenFd, send } from "../../ffi/socket.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import { OurBackend, startCommand } from "./our_backend.ts";

/** The pattern of `scripts/guest/vsock.c`: the 32-bit word number i is i * 2654435761. */
export function pattern(length: number, position = 0): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(length / 4);
  for (let i = 0, word = position / 4; i < words.length; i++, word++) words[i] = Math.imul(word, 2654435761);
  return new Uint8Array(words.buffer);
}

/** Compares a stream with the pattern, chunk by chunk. */
export class PatternCheck {
  /** Bytes so far. */
  length = 0;
  /** Where it differs; -1 for nowhere. */
  wrongAt = -1;
  #word = new Uint8Array(4);

  /** Takes the next bytes. */
  add(chunk: Uint8Array): void {
    const words = new Uint32Array(this.#word.buffer);
    for (let i = 0; i < chunk.length && this.wrongAt < 0;) {
      const at = this.length + i;
      // Whole words where they lie well, which they do but at the edges of chunks.
      words[0] = Math.imul(at >>> 2, 2654435761);
      const first = at & 3;
      for (let k = first; k < 4 && i < chunk.length; k++, i++) {
        if (chunk[i] !== this.#word[k]) this.wrongAt = this.length + i;
      }
    }
    this.length += chunk.length;
  }
}

/** A socket device as a process, and where it listens. */
export interface VsockBackend {
  readonly backend: OurBackend;
  /** Control sockets by CID. */
  readonly sockets: ReadonlyMap<number, string>;
  /** Path of the Unix sockets by CID. */
  readonly paths: ReadonlyMap<number, string>;
}

/** Serves guests by the command line: their CIDs, each with its groups. */
export async function startVsockDevice(
  scope: Scope,
  guests: Readonly<Record<number, string>> = { 3: "" },
  args: readonly string[] = [],
): Promise<VsockBackend> {
  const folder = tempDir(scope);
  const cids = Object.keys(guests).map(Number);
  const sockets = new Map(cids.map((cid) => [cid, join(folder, `${cid}.sock`)]));
  const paths = new Map(cids.map((cid) => [cid, join(folder, `u${cid}`)]));
  const child = startCommand(scope, [
    "vsock",
    ...cids.flatMap((cid) => [
      "--vm",
      `guest-cid=${cid},socket=${sockets.get(cid)},uds-path=${paths.get(cid)}` +
      (guests[cid] === "" ? "" : `,groups=${guests[cid]}`),
    ]),
    ...args,
  ]);
  for (const cid of cids) await child.waitLine(new RegExp(`^vhost-user vsock: guest ${cid} on `));
  return { backend: new OurBackend(scope, child, sockets.get(cids[0]) ?? ""), sockets, paths };
}

/** Connects to a port of the guest, as programs of the host do. */
export async function dialGuest(scope: Scope, path: string, port: number): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  onEnd(scope, () => void socket.destroy());
  socket.write(`CONNECT ${port}\n`);
  const answer = await new Promise<string>((resolve, reject) => {
    socket.once("readable", () => {
      // One byte after the other, so that what follows the line stays in the socket.
      let line = "";
      for (let byte = socket.read(1); byte !== null; byte = socket.read(1)) {
        line += String(byte);
        if (line.endsWith("\n")) break;
      }
      if (line === "") reject(new Error("closed before an answer came"));
      resolve(line);
    });
    socket.once("close", () => reject(new Error("closed before an answer came")));
    socket.once("error", reject);
  });
  if (!/^OK \d+\n$/.test(answer)) throw new Error(`the answer to CONNECT is ${JSON.stringify(answer)}`);
  return socket;
}

/** Listens where the guest connects to, and hands each connection to `take`. */
export async function listenForGuest(
  scope: Scope,
  path: string,
  port: number,
  take: (socket: Socket) => void,
): Promise<Server> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    take(socket);
  });
  server.listen(`${path}_${port}`);
  await once(server, "listening");
  onEnd(scope, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return server;
}

/** A socket of the kind SOCK_SEQPACKET, which Node does not have. */
export class MessageSocket {
  #fd: number;

  /** Connects. */
  static connect(scope: Scope, path: string): MessageSocket {
    return new MessageSocket(scope, connectFd(path, "seqpacket"));
  }

  /** Listens; the function waits for a connection. */
  static listen(scope: Scope, path: string): () => Promise<MessageSocket> {
    const listener = listenFd(path, 0o600, 16, "seqpacket");
    onEnd(scope, () => {
      close(listener);
      removeFile(path);
    });
    return async () => new MessageSocket(scope, await until(() => acceptFd(listener)));
  }

  /** Takes over a socket. */
  constructor(scope: Scope, fd: number) {
    this.#fd = fd;
    onEnd(scope, () => this.close());
  }

  /** Closes it. */
  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  /** The next message, at most 4096 bytes of it; empty at the end. */
  receive(): Promise<Uint8Array> {
    return until(() => readBytes(this.#fd));
  }

  /** Sends a message. */
  send(message: Uint8Array | string): Promise<void> {
    const native = new Native(Math.max(1, message.length));
    native.bytes.set(typeof message === "string" ? new TextEncoder().encode(message) : message);
    const sent = () => send(this.#fd, native.address, message.length) < 0 ? null : true;
    return until(sent).then(() => {});
  }
}

async function until<T>(probe: () => T | null): Promise<T> {
  for (const deadline = Date.now() + 10_000;; await sleep(5)) {
    const found = probe();
    if (found !== null) return found;
    if (Date.now() > deadline) throw new Error("nothing for 10 s");
  }
}

/** Resolves at the end of what a socket gets, having given each chunk to `take`. */
export function readToEnd(socket: Socket, take: (chunk: Uint8Array) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on("data", take);
    socket.once("end", resolve);
    socket.once("error", reject);
  });
}

/** Writes `length` bytes of the pattern, as fast as the socket takes them. */
export async function writePattern(socket: Socket, length: number): Promise<void> {
  const step = 1 << 18;
  for (let at = 0; at < length; at += step) {
    if (!socket.write(pattern(Math.min(step, length - at), at))) await once(socket, "drain");
  }
}
