/**
 * A terminal in the browser.
 *
 * @module
 */

import { randomBytes, timingSafeEqual } from "node:crypto";
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { isIP } from "node:net";
// @ts-types="@types/ws"
import { type WebSocket, WebSocketServer } from "ws";
import { Backlog, type ConsoleEnd, type OutputData, type PortLink } from "../devices/console/mod.ts";
import { UsageError } from "./command.ts";
import { files } from "./terminal_page.ts";

/** Bytes that the browser may have without having shown them. */
const WINDOW = 1 << 18;
/** Bytes that it is sent at once. */
const PIECE = 65536;
/** The longest message that it may send: what is pasted. */
const MAX_MESSAGE = 1 << 20;
/** How often it is asked whether it is still there, ms. */
const HEARTBEAT = 15_000;
/** Why a window is closed: another has taken over. */
const TAKEN_OVER = 4000;

/**
 * Serves a page with a terminal. Its address has a secret in it, as whoever opens the page has the guest's terminal. One
 * window at a time: a new one takes over, and shows the last 64 KiB.
 */
export class WebTerminal implements ConsoleEnd {
  /** The address of the page. */
  readonly url: string;
  readonly #server: Server;
  readonly #secret: string;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE,
    perMessageDeflate: false,
  });
  readonly #history = new Backlog();
  readonly #heartbeat: ReturnType<typeof setInterval>;
  #port: PortLink | undefined;
  #socket: WebSocket | undefined;
  /** Bytes that were sent and not shown yet. */
  #unshown = 0;
  #alive = true;
  /** What the guest has not taken yet of the last messages. */
  #pending: Uint8Array[] = [];

  /**
   * Serves at `[ADDRESS:]PORT`; by default at 127.0.0.1. Port 0 takes one that is free.
   *
   * @param name of the terminal, for the window's title
   * @throws {UsageError}
   */
  static async listen(address: string, name: string): Promise<WebTerminal> {
    const match = /^(?:(?:\[([^\]]+)\]|([^:]+)):)?(\d{1,5})$/.exec(address);
    const host = match?.[1] ?? match?.[2] ?? "127.0.0.1";
    if (match === null || Number(match[3]) > 65535 || isIP(host) === 0) {
      throw new UsageError(`web:[ADDRESS:]PORT has an IP address and a port, got ${JSON.stringify(address)}`);
    }
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(Number(match[3]), host, resolve);
    });
    return new WebTerminal(server, host, name);
  }

  private constructor(server: Server, host: string, name: string) {
    this.#server = server;
    this.#secret = randomBytes(16).toString("hex");
    const bound = server.address();
    const port = typeof bound === "object" && bound !== null ? bound.port : 0;
    const shown = isIP(host) === 6 ? `[${host}]` : host;
    this.url = `http://${shown}:${port}/${this.#secret}/#${encodeURIComponent(name)}`;
    server.on("request", (request, response) => {
      const file = this.#path(request);
      const found = file !== undefined && Object.hasOwn(files, file) ? files[file] : undefined;
      if (found === undefined || request.method !== "GET") {
        response.writeHead(404, { "content-type": "text/plain", "connection": "close" }).end("not here\n");
        return;
      }
      response.writeHead(200, {
        "content-type": found[0],
        "cache-control": "no-store",
        "connection": "close",
        "content-security-policy":
          "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
      }).end(found[1]);
    });
    server.on("upgrade", (request, socket, head) => {
      socket.on("error", () => {});
      if (this.#path(request) !== "socket" || !isOwnPage(request)) {
        socket.end("HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n");
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (peer) => this.#accept(peer));
    });
    this.#heartbeat = setInterval(() => {
      if (!this.#alive) this.#socket?.terminate();
      this.#alive = false;
      this.#socket?.ping();
    }, HEARTBEAT);
    this.#heartbeat.unref?.();
  }

  /** The file that is asked for, if the secret is right. */
  #path(request: IncomingMessage): string | undefined {
    const match = /^\/([0-9a-f]{32})\/([a-z.]*)$/.exec(request.url ?? "");
    if (match === null) return undefined;
    return timingSafeEqual(Buffer.from(match[1]), Buffer.from(this.#secret)) ? match[2] : undefined;
  }

  #accept(socket: WebSocket): void {
    this.#socket?.close(TAKEN_OVER);
    this.#lost();
    this.#socket = socket;
    this.#alive = true;
    socket.on("pong", () => this.#alive = true);
    socket.on("error", () => {});
    socket.on("message", (data, binary) => {
      if (socket !== this.#socket) return;
      this.#alive = true;
      const bytes = data as Buffer;
      if (binary) this.#input(bytes);
      else this.#told(bytes.toString());
    });
    socket.on("close", () => {
      if (socket === this.#socket) this.#lost();
    });
    const before = this.#history.bytes();
    this.#unshown = before.length;
    if (before.length > 0) socket.send(before);
    this.#port?.connected(true);
    this.#port?.resume();
  }

  #lost(): void {
    if (this.#socket === undefined) return;
    this.#socket = undefined;
    this.#unshown = 0;
    this.#pending = [];
    this.#port?.connected(false);
    this.#port?.resume();
  }

  /** A message about the window; one that makes no sense is ignored. */
  #told(text: string): void {
    let message: { size?: unknown; shown?: unknown } | null;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const { size, shown } = message ?? {};
    if (Array.isArray(size)) {
      const [columns, rows] = size;
      const fits = (value: unknown) =>
        Number.isInteger(value) && (value as number) > 0 && (value as number) < 10_000;
      if (fits(columns) && fits(rows)) this.#port?.resize(columns, rows);
    }
    if (typeof shown === "number" && shown > 0) {
      this.#unshown = Math.max(0, this.#unshown - shown);
      this.#port?.resume();
    }
  }

  #input(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.refilled();
    // TCP holds the browser up while the guest does not read.
    if (this.#pending.length > 0) this.#socket?.pause();
  }

  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    this.#port = port;
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    const socket = this.#socket;
    if (socket === undefined) {
      this.#history.push(data, from);
      return data.byteLength - from;
    }
    let at = from;
    while (at < data.byteLength && this.#unshown < WINDOW) {
      const bytes = new Uint8Array(Math.min(PIECE, WINDOW - this.#unshown, data.byteLength - at));
      data.copyTo(bytes, at);
      this.#history.push({
        byteLength: bytes.length,
        copyTo: (target, position = 0) => {
          const piece = bytes.subarray(position, position + target.length);
          target.set(piece);
          return piece.length;
        },
      }, 0);
      socket.send(bytes);
      at += bytes.length;
      this.#unshown += bytes.length;
    }
    return at - from;
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {
    while (this.#pending.length > 0) {
      const [first] = this.#pending;
      const taken = this.#port?.input(first) ?? 0;
      if (taken < first.length) {
        this.#pending[0] = first.subarray(taken);
        return;
      }
      this.#pending.shift();
    }
    if (this.#socket?.isPaused === true) this.#socket.resume();
  }

  /** {@link ConsoleEnd.close}. */
  close(): void {
    clearInterval(this.#heartbeat);
    this.#socket?.terminate();
    this.#socket = undefined;
    this.#sockets.close();
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** Whether a socket is opened by our own page: other pages of the same browser may not. */
function isOwnPage({ headers: { origin, host } }: IncomingMessage): boolean {
  // Programs other than browsers say nothing of where they are from.
  if (origin === undefined) return true;
  try {
    return new URL(origin).host === host;
  } catch {
    return false;
  }
}
