import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { listen, socketPair } from "../../ffi/socket.ts";
import { defineDevice, serve, type ServeOptions, type Server, SocketInUseError } from "../../mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { RawPeer } from "./raw_peer.ts";
import { eventually, LIMIT, LogBook } from "./scene.ts";

const rng = defineDevice({
  type: 4,
  name: "rng",
  queues: [(chain) => chain.write((bytes) => bytes.fill(4))],
});

/** Serves the device; the caller expects it to work. */
async function open(t: TestContext, options: ServeOptions): Promise<{ server: Server; log: LogBook }> {
  const log = new LogBook();
  const server = await serve(rng, { log: log.write, ...options });
  onEnd(t, () => server.close());
  return { server, log };
}

/** Whether a back-end answers there. */
async function answers(t: TestContext, path: string): Promise<boolean> {
  const peer = RawPeer.connect(path);
  onEnd(t, () => peer.close());
  return (await peer.number("GET_FEATURES")) !== 0n;
}

const socketIn = (t: TestContext): string => join(tempDir(t), "socket");
const mode = (path: string): number => statSync(path).mode & 0o777;

test("a socket for the owner alone, removed at the end", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path });
  assert.equal(mode(path), 0o600);
  assert.ok(await answers(t, path));
  server.close();
  await server.finished;
  assert.equal(existsSync(path), false);
  assert.throws(() => RawPeer.connect(path), /ENOENT/);
});

test("a socket with other permissions", LIMIT, async (t) => {
  const path = socketIn(t);
  await open(t, { socketPath: path, socketMode: 0o666 });
  assert.equal(mode(path), 0o666);
});

test("front-ends come and go", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server, log } = await open(t, { socketPath: path });
  for (let i = 0; i < 5; i++) {
    const peer = RawPeer.connect(path);
    await peer.number("GET_FEATURES");
    assert.equal(server.sessions, 1);
    peer.close();
    await eventually("the front-end has left", () => server.sessions === 0);
  }
  assert.deepEqual(log.problems, []);
  assert.deepEqual(log.lines.slice(0, 2), [
    "info: rng: a front-end has connected",
    "info: rng: the front-end has left",
  ]);
});

test("several front-ends at once, up to a limit; the rest wait", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path, limits: { sessions: 2 } });
  const [first, second, third] = [1, 2, 3].map(() => RawPeer.connect(path));
  onEnd(t, () => [first, second, third].forEach((each) => each.close()));
  await first.number("GET_FEATURES");
  await second.number("GET_FEATURES");
  const waiting = third.number("GET_FEATURES");
  await second.number("GET_FEATURES");
  assert.equal(server.sessions, 2);
  first.close();
  await waiting;
  assert.equal(server.sessions, 2);
});

test("closing drops all front-ends", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path });
  const peers = [1, 2, 3].map(() => RawPeer.connect(path));
  for (const each of peers) await each.number("GET_FEATURES");
  server.close();
  server.close();
  for (const each of peers) {
    await each.end();
    each.close();
  }
  await server.finished;
  assert.equal(server.sessions, 0);
});

test("a socket file that nobody listens on is replaced", LIMIT, async (t) => {
  const path = socketIn(t);
  close(listen(path));
  assert.ok(existsSync(path));
  await open(t, { socketPath: path });
  assert.ok(await answers(t, path));
});

test("a socket that another process listens on is refused and left alone", LIMIT, async (t) => {
  const path = socketIn(t);
  const first = await open(t, { socketPath: path });
  await assert.rejects(open(t, { socketPath: path }), (error: Error) => {
    assert.ok(error instanceof SocketInUseError);
    assert.match(error.message, new RegExp(`another process is listening on ${path}: stop it, or choose`));
    return true;
  });
  assert.ok(await answers(t, path));
  first.server.close();
  await open(t, { socketPath: path });
});

test("a file that is no socket is refused and left as it is", LIMIT, async (t) => {
  const path = socketIn(t);
  writeFileSync(path, "precious");
  await assert.rejects(
    open(t, { socketPath: path }),
    /SocketInUseError: .*exists and is not a socket; it is left/,
  );
  assert.equal(readFileSync(path, "utf8"), "precious");
});

test("a path where no socket can be is refused with a reason", LIMIT, async (t) => {
  await assert.rejects(
    open(t, { socketPath: "/nowhere/socket" }),
    /bind: ENOENT .*creating the socket \/nowhere\//,
  );
  await assert.rejects(
    open(t, { socketPath: `/tmp/${"x".repeat(108)}` }),
    /socket path must have 1 to 107 bytes/,
  );
});

test("a socket that somebody else has put there by the end is not removed", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path });
  unlinkSync(path);
  const other = listen(path);
  onEnd(t, () => close(other));
  server.close();
  assert.ok(existsSync(path));
});

test("a socket file that is gone by the end is not missed", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path });
  unlinkSync(path);
  server.close();
  await server.finished;
});

test("a connected descriptor is served until its front-end leaves", LIMIT, async (t) => {
  const [ours, theirs] = socketPair();
  const { server, log } = await open(t, { fd: theirs });
  const peer = RawPeer.on(ours);
  await peer.number("GET_FEATURES");
  assert.equal(server.sessions, 1);
  peer.close();
  await server.finished;
  assert.deepEqual(log.problems, []);
});

test("a listening descriptor is served until the end; its file is its giver's", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { fd: listen(path) });
  for (let i = 0; i < 2; i++) assert.ok(await answers(t, path));
  server.close();
  await server.finished;
  assert.ok(existsSync(path));
  assert.throws(() => RawPeer.connect(path), /ECONNREFUSED/);
});

test("options that do not go together are refused", LIMIT, async (t) => {
  await assert.rejects(open(t, {}), /give either socketPath or fd/);
  await assert.rejects(open(t, { socketPath: socketIn(t), fd: 0 }), /give either socketPath or fd/);
  for (const pollUs of [-1, 1_000_001, NaN]) {
    await assert.rejects(open(t, { socketPath: socketIn(t), pollUs }), /pollUs must be 0 to 1000000, got/);
  }
});

test("an abort signal closes the server", LIMIT, async (t) => {
  const path = socketIn(t);
  const controller = new AbortController();
  const { server } = await open(t, { socketPath: path, signal: controller.signal });
  const peer = RawPeer.connect(path);
  onEnd(t, () => peer.close());
  await peer.number("GET_FEATURES");
  controller.abort();
  await server.finished;
  await peer.end();
  assert.equal(existsSync(path), false);
});

test("a signal that has been given already lets nothing start", LIMIT, async (t) => {
  const path = socketIn(t);
  const { server } = await open(t, { socketPath: path, signal: AbortSignal.abort() });
  await server.finished;
  assert.equal(existsSync(path), false);
});

test("onSession sees a session before its first message", LIMIT, async (t) => {
  const path = socketIn(t);
  const seen: string[] = [];
  await open(t, {
    socketPath: path,
    onSession: (session) => {
      session.connection.tap = (direction, { name }) => seen.push(`${direction} ${name}`);
    },
  });
  await answers(t, path);
  assert.deepEqual(seen, ["in GET_FEATURES", "out GET_FEATURES"]);
});
