/**
 * Connections of guests, continued by the sockets of this machine.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { connect, type Socket } from "node:net";
import { type AllowList, isInternal, type Target } from "./rules.ts";
import type { TcpStreams } from "./tcp.ts";
import type { ConnectionHandler } from "./user_network.ts";

/** How long a connection may take to come about, ms. */
const PATIENCE = 15_000;

/** Told of each call of a guest, and what has become of it. */
export type ProxyLog = (text: string) => void;

/**
 * Calls what the guest has called, if a list allows it, and passes on what both say. Names are looked up here, when they are
 * called, and never by the guest. Needs `--allow-net`.
 *
 * @param log told of each call
 */
export function proxy(list: AllowList, log: ProxyLog = () => {}): ConnectionHandler {
  return async (connection) => {
    const { host, address, port } = connection;
    const called = `${host ?? address}:${port}`;
    const target = list.find(host, address, port);
    if (target === undefined) return log(`refused ${called}: no rule allows it`);
    let socket: Socket;
    try {
      socket = await open(target);
    } catch (error) {
      // This program may not connect at all, which is its user's to know.
      if ((error as Error).name === "NotCapable") throw error;
      return log(`refused ${called}: ${(error as Error).message}`);
    }
    let streams: TcpStreams;
    try {
      streams = connection.accept();
    } catch {
      socket.destroy();
      return log(`the guest has given up calling ${called}`);
    }
    log(`connected ${called}`);
    try {
      await Promise.all([toSocket(streams.readable, socket), toGuest(socket, streams.writable)]);
    } catch {
      // One side has broken it off; so the other learns of it.
      socket.destroy();
      connection.abort();
    }
  };
}

/** Connects to the target. */
async function open({ host, port, exact }: Target): Promise<Socket> {
  const { address } = await lookup(host);
  if (!exact && isInternal(address)) {
    throw new Error(`${host} is ${address}, which only a rule for it alone opens`);
  }
  // By address: another look-up could have another result.
  const socket = connect({ host: address, port, allowHalfOpen: true, noDelay: true });
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(new Error("nobody answers")), PATIENCE);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    };
    socket.once("error", fail);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", fail);
      // Whoever reads or writes learns of it; one that nobody listens to would end the process.
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

async function toSocket(readable: ReadableStream<Uint8Array>, socket: Socket): Promise<void> {
  for await (const chunk of readable) {
    if (socket.write(chunk)) continue;
    await new Promise<void>((resolve, reject) => {
      const done = (error?: Error): void => {
        socket.off("drain", done);
        socket.off("close", closed);
        if (error === undefined) resolve();
        else reject(error);
      };
      const closed = (): void => done(new Error("the peer has left"));
      socket.once("drain", done);
      socket.once("close", closed);
    });
  }
  socket.end();
}

async function toGuest(socket: Socket, writable: WritableStream<Uint8Array>): Promise<void> {
  const writer = writable.getWriter();
  for await (const chunk of socket) await writer.write(chunk);
  await writer.close();
}
