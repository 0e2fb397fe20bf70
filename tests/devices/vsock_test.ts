import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  ShutdownFlag,
  type VsockConnection,
  VsockDevice,
  VsockGroup,
  VsockOp,
  type VsockOptions,
  VsockType,
} from "../../src/devices/vsock/mod.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { VsockDriver, type VsockDriverOptions } from "./vsock_driver.ts";

const PACKED = 1n << 34n;
const { REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST } = VsockOp;

interface Stage {
  readonly scene: Scene;
  readonly device: VsockDevice;
  driver(options?: VsockDriverOptions): Promise<VsockDriver>;
}

async function open(t: Scope, options: Partial<VsockOptions> = {}): Promise<Stage> {
  const errors: unknown[] = [];
  const device = new VsockDevice({ guestCid: 3, onError: (error) => errors.push(error), ...options });
  onEnd(t, () => device.close());
  const scene = await Scene.open(t, device);
  onEnd(t, () => assert.deepEqual(errors, []));
  return {
    scene,
    device,
    driver: (more) => VsockDriver.connect(t, scene.path, { cid: device.guestCid, ...more }),
  };
}

/** A guest with a connection to a program that holds it. */
async function connected(
  t: Scope,
  options: Partial<VsockOptions> = {},
  type: number = VsockType.STREAM,
): Promise<Stage & { guest: VsockDriver; connection: VsockConnection }> {
  let connection: VsockConnection | undefined;
  const stage = await open(t, { listen: { 1234: (each) => connection = each }, ...options });
  const guest = await stage.driver();
  await guest.send({ op: REQUEST, type });
  const answer = await guest.expect(RESPONSE);
  assert.deepEqual(
    [answer.srcCid, answer.dstCid, answer.srcPort, answer.dstPort, answer.type],
    [2, 3, 1234, 1000, type],
  );
  assert.ok(connection !== undefined);
  return { ...stage, guest, connection };
}

async function readAll(connection: VsockConnection): Promise<Uint8Array> {
  return new Uint8Array(await new Response(connection.readable).arrayBuffer());
}

for (const [format, withoutFeatures] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`the guest connects to a program, which echoes (${format})`, LIMIT, async (t) => {
    const { driver, device } = await open(t, {
      listen: { 1234: ({ readable, writable }) => readable.pipeTo(writable) },
    });
    const guest = await driver({ withoutFeatures });
    const config = await guest.frontEnd.readConfig(0, 8);
    assert.deepEqual([...config], [3, 0, 0, 0, 0, 0, 0, 0]);
    await guest.send({ op: REQUEST });
    const { bufAlloc } = await guest.expect(RESPONSE);
    assert.equal(bufAlloc, 1 << 18);
    for (
      const [length, cuts] of [[1, [44]], [100, [3, 20, 50]], [4052, []], [4053, [44, 45]], [20000, [
        100,
      ]]] as const
    ) {
      const data = bytesOf(length, length);
      await guest.send({ op: RW, payload: data }, cuts);
      let back = 0;
      while (back < length) {
        const { payload } = await guest.expect(RW);
        sameBytes(payload, data.subarray(back, back + payload.length));
        back += payload.length;
      }
    }
    await guest.send({ op: SHUTDOWN, flags: ShutdownFlag.BOTH });
    await guest.expect(RST);
    assert.equal(device.counters.connections, 0);
    assert.equal(device.counters.opened, 1);
  });
}

test("a program connects to the guest", LIMIT, async (t) => {
  const { driver, device } = await open(t);
  await assert.rejects(device.dial(5000), /ENETUNREACH/);
  const guest = await driver();
  const dialled = device.dial(5000);
  const { srcPort, srcCid } = await guest.expect(REQUEST);
  assert.equal(srcCid, 2);
  const to = { srcPort: 5000, dstPort: srcPort };
  await guest.send({ op: RESPONSE, ...to });
  const connection = await dialled;
  assert.deepEqual([connection.guestPort, connection.hostPort, connection.type], [5000, srcPort, "stream"]);
  const writer = connection.writable.getWriter();
  await writer.write(bytesOf(1, 10));
  sameBytes((await guest.expect(RW)).payload, bytesOf(1, 10));
  // Half-closed by each side, then over.
  await writer.close();
  assert.equal((await guest.expect(SHUTDOWN)).flags, ShutdownFlag.SEND);
  await guest.send({ op: RW, payload: bytesOf(2, 20), ...to });
  await guest.send({ op: SHUTDOWN, flags: ShutdownFlag.SEND, ...to });
  sameBytes(await readAll(connection), bytesOf(2, 20));
  assert.equal((await guest.expect(SHUTDOWN)).flags, ShutdownFlag.BOTH);
  await guest.send({ op: RST, ...to });
  await connection.closed;
  assert.equal(device.counters.connections, 0);

  const refused = assert.rejects(device.dial(5001), /ECONNREFUSED/);
  const { srcPort: next } = await guest.expect(REQUEST);
  assert.notEqual(next, srcPort);
  await guest.send({ op: RST, srcPort: 5001, dstPort: next });
  await refused;
});

test("a guest that does not answer is given up", LIMIT, async (t) => {
  const { driver, device } = await open(t, { connectTimeout: 50 });
  const guest = await driver();
  await assert.rejects(device.dial(5000), /ETIMEDOUT/);
  await guest.expect(REQUEST);
  await guest.expect(RST);
  assert.equal(device.counters.connections, 0);
});

test("what is not there is refused, once for each packet", LIMIT, async (t) => {
  const { driver, device } = await open(t);
  const guest = await driver();
  for (const op of [REQUEST, RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0, 8, 0xffff]) {
    await guest.send({ op, srcPort: 7, dstPort: 8 });
    const { srcPort, dstPort } = await guest.expect(RST);
    assert.deepEqual([srcPort, dstPort], [8, 7]);
  }
  await guest.send({ op: REQUEST, type: 3 });
  assert.equal((await guest.expect(RST)).type, 3);
  await guest.send({ op: REQUEST, dstCid: 4 });
  assert.equal((await guest.expect(RST)).srcCid, 4);
  // No answer: an RST, another's CID, a header that is cut off, less payload than it says.
  await guest.send({ op: RST });
  await guest.send({ op: REQUEST, srcCid: 4 });
  await guest.sendBytes(new Uint8Array(43));
  const short = new Uint8Array(44);
  short[0] = 3;
  short[24] = 1;
  await guest.sendBytes(short);
  await aWhile();
  assert.equal(guest.received.length, 0);
  assert.equal(device.counters.malformed, 3);
});

test("credit is counted, and wraps around at 32 bits", LIMIT, async (t) => {
  const { guest, connection } = await connected(t);
  const writer = connection.writable.getWriter();
  // As if almost 4 GiB had passed already: only differences count, so go there by small steps of a large buffer.
  await guest.send({ op: CREDIT_UPDATE, bufAlloc: 10, fwdCnt: 0 });
  const first = writer.write(bytesOf(1, 25));
  sameBytes((await guest.expect(RW)).payload, bytesOf(1, 25).subarray(0, 10));
  await guest.expect(CREDIT_REQUEST);
  await aWhile();
  assert.equal(guest.received.length, 0);
  // More read than was sent: no room.
  await guest.send({ op: CREDIT_UPDATE, bufAlloc: 10, fwdCnt: 11 });
  await aWhile();
  assert.equal(guest.received.length, 0);
  await guest.send({ op: CREDIT_UPDATE, bufAlloc: 10, fwdCnt: 4 });
  sameBytes((await guest.expect(RW)).payload, bytesOf(1, 25).subarray(10, 14));
  await guest.expect(CREDIT_REQUEST);
  // A guest may make its buffer smaller than what is in it.
  await guest.send({ op: CREDIT_UPDATE, bufAlloc: 5, fwdCnt: 4 });
  await aWhile();
  assert.equal(guest.received.length, 0);
  await guest.send({ op: CREDIT_UPDATE, bufAlloc: 0xffff_ffff, fwdCnt: 14 });
  sameBytes((await guest.expect(RW)).payload, bytesOf(1, 25).subarray(14));
  await first;
});

test("a program that does not read stops the guest, whose data stays in bounds", LIMIT, async (t) => {
  const { guest, connection, device } = await connected(t, { bufferSize: 1 << 16 });
  // The stream reads ahead by as much as its first mark; the rest is the buffer.
  let sent = 0;
  let forwarded = 0;
  const step = 4096;
  while (((sent - forwarded) >>> 0) + step <= 1 << 16) {
    await guest.send({ op: RW, payload: bytesOf(sent, step) });
    sent += step;
    await guest.send({ op: CREDIT_REQUEST });
    forwarded = (await guest.expect(CREDIT_UPDATE)).fwdCnt;
  }
  assert.ok(sent <= 3 << 16, `${sent} bytes were taken`);
  const reader = connection.readable.getReader();
  let read = 0;
  while (read < sent) {
    const { value } = await reader.read();
    assert.ok(value !== undefined);
    read += value.length;
  }
  await eventually(
    "credit is given back",
    () => guest.received.some(({ fwdCnt }) => sent - fwdCnt <= 1 << 14),
  );
  guest.received.length = 0;
  // More than there is credit for ends the connection.
  for (let i = 0; i < 60; i++) await guest.send({ op: RW, payload: new Uint8Array(step) });
  await eventually("it is reset", () => guest.received.some(({ op }) => op === RST));
  await assert.rejects(connection.closed, /more than it has credit for/);
  assert.equal(device.counters.connections, 0);
});

test("the sending ring goes on while the guest takes nothing", LIMIT, async (t) => {
  const { driver, device } = await open(t, {
    listen: { 1234: ({ readable, writable }) => readable.pipeTo(writable) },
  });
  const guest = await driver({ buffers: 0 });
  for (let i = 0; i < 3000; i++) await guest.send({ op: RW, srcPort: i, dstPort: 9 });
  await guest.send({ op: REQUEST });
  for (let i = 0; i < 10; i++) await guest.send({ op: RW, payload: bytesOf(i, 1000) });
  assert.equal(device.counters.dropped, 3000 - 1024);
  guest.offer(16);
  const packets = await guest.take(1024 + 1);
  assert.ok(packets.slice(0, 1024).every(({ op, dstPort }, i) => op === RST && dstPort === i));
  assert.equal(packets[1024].op, RESPONSE);
  await eventually(
    "the echo",
    () => guest.received.reduce((sum, { payload }) => sum + payload.length, 0) === 10_000,
  );
});

test("messages keep their bounds, both ways", LIMIT, async (t) => {
  const { guest, connection } = await connected(t, {}, VsockType.SEQPACKET);
  const type = VsockType.SEQPACKET;
  const message = bytesOf(1, 9000);
  await guest.send({ op: RW, type, payload: message.subarray(0, 5000) });
  await guest.send({ op: RW, type, payload: message.subarray(5000), flags: 3 });
  await guest.send({ op: RW, type, payload: new Uint8Array(0), flags: 1 });
  await guest.send({ op: RW, type, payload: bytesOf(2, 1), flags: 1 });
  const reader = connection.readable.getReader();
  const got = [];
  for (let i = 0; i < 3; i++) got.push((await reader.read()).value ?? new Uint8Array(99));
  sameBytes(got[0], message);
  assert.equal(got[1].length, 0);
  sameBytes(got[2], bytesOf(2, 1));
  const writer = connection.writable.getWriter();
  await writer.write(message);
  const parts = await guest.take(3);
  assert.deepEqual(parts.map(({ flags, payload }) => [flags, payload.length]), [[0, 4052], [0, 4052], [
    1,
    896,
  ]]);
  await guest.send({ op: CREDIT_UPDATE, type, bufAlloc: 1000, fwdCnt: 9000 });
  await aWhile();
  await assert.rejects(writer.write(new Uint8Array(1001)), /EMSGSIZE/);
});

test("messages of nothing cost something", LIMIT, async (t) => {
  const { guest, connection } = await connected(t, { bufferSize: 4096 }, VsockType.SEQPACKET);
  // The program reads 64 KiB ahead; fill that first.
  for (let i = 0; i < 17; i++) {
    await guest.send({ op: RW, type: VsockType.SEQPACKET, payload: new Uint8Array(4096), flags: 1 });
  }
  for (let i = 0; i < 300; i++) await guest.send({ op: RW, type: VsockType.SEQPACKET, flags: 1 });
  await assert.rejects(connection.closed, /more messages than are kept/);
});

test("the guest resets, and begins anew", LIMIT, async (t) => {
  const { guest, connection, device } = await connected(t);
  await guest.send({ op: RST });
  await assert.rejects(connection.closed, /ECONNRESET/);
  await assert.rejects(readAll(connection), /ECONNRESET/);
  await guest.send({ op: REQUEST });
  await guest.expect(RESPONSE);
  // The same ports once more: what the guest had there it has forgotten.
  await guest.send({ op: REQUEST });
  await guest.expect(RESPONSE);
  assert.equal(device.counters.connections, 1);
  assert.equal(device.counters.opened, 3);
});

test("a packet of the wrong kind ends its connection only", LIMIT, async (t) => {
  const { guest, device } = await connected(t);
  for (
    const packet of [
      { op: RESPONSE },
      { op: 77 },
      { op: RW, type: VsockType.SEQPACKET, payload: new Uint8Array(3) },
    ]
  ) {
    await guest.send({ op: REQUEST, srcPort: 2000 });
    await guest.expect(RESPONSE);
    await guest.send({ srcPort: 2000, ...packet });
    await guest.expect(RST);
    assert.equal(device.counters.connections, 1);
  }
});

test("connections have a limit", LIMIT, async (t) => {
  const { driver, device } = await open(t, { listen: { 1234: () => {} }, maxConnections: 5 });
  const guest = await driver();
  for (let i = 0; i < 5; i++) {
    await guest.send({ op: REQUEST, srcPort: i });
    await guest.expect(RESPONSE);
  }
  await guest.send({ op: REQUEST, srcPort: 5 });
  await guest.expect(RST);
  await assert.rejects(device.dial(1), /ENOBUFS/);
  await guest.send({ op: RST, srcPort: 2 });
  await guest.send({ op: REQUEST, srcPort: 5 });
  await guest.expect(RESPONSE);
});

test("a pause keeps connections; a driver that begins anew has none", LIMIT, async (t) => {
  const { guest, connection } = await connected(t);
  await guest.send({ op: RW, payload: bytesOf(1, 100) });
  for (const queue of [guest.rx, guest.tx]) await guest.frontEnd.stopRing(queue.index);
  const writer = connection.writable.getWriter();
  const written = writer.write(bytesOf(2, 100));
  for (const queue of [guest.rx, guest.tx]) await guest.frontEnd.startRing(queue);
  await written;
  sameBytes((await guest.expect(RW)).payload, bytesOf(2, 100));
  for (const queue of [guest.rx, guest.tx]) await guest.frontEnd.stopQueue(queue);
  await guest.start();
  await assert.rejects(connection.closed, /the guest is gone/);
  guest.offer(8);
  await guest.send({ op: REQUEST });
  await guest.expect(RESPONSE);
});

test("a driver that comes back is told that its connections are gone", LIMIT, async (t) => {
  const { guest, connection, driver, device } = await connected(t);
  guest.close();
  await assert.rejects(connection.closed, /the guest is gone/);
  await eventually("it is gone", () => !device.running);
  const next = await driver({ events: true });
  await eventually("the event", () => next.events.length === 1);
  assert.deepEqual(next.events, [0]);
  next.close();
  await eventually("it is gone", () => !device.running);
  const fresh = await driver({ events: true });
  await fresh.send({ op: RW });
  await fresh.expect(RST);
  assert.deepEqual(fresh.events, []);
});

/** A program of the host that connects, as with Firecracker. */
async function dialUnix(t: Scope, path: string, text: string): Promise<Socket> {
  const socket = connect(path);
  onEnd(t, () => void socket.destroy());
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(text);
  return socket;
}

/** Waits for the end, be it an error or not. */
function closing(socket: Socket): Promise<void> {
  socket.resume();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

test("the host's programs connect by a Unix socket", LIMIT, async (t) => {
  const unixPath = join(tempDir(t), "v");
  const { driver, device } = await open(t, { unixPath });
  const guest = await driver();
  // Cut anywhere, and with data right behind.
  const socket = await dialUnix(t, unixPath, "CONN");
  await aWhile();
  socket.write("ECT 5000\nhel");
  const { srcPort, dstPort } = await guest.expect(REQUEST);
  assert.equal(dstPort, 5000);
  const to = { srcPort: 5000, dstPort: srcPort };
  socket.write("lo");
  await guest.send({ op: RESPONSE, ...to });
  const [answer] = await once(socket, "data");
  assert.equal(String(answer), `OK ${srcPort}\n`);
  let text = "";
  while (text.length < 5) text += new TextDecoder().decode((await guest.expect(RW)).payload);
  assert.equal(text, "hello");
  await guest.send({ op: RW, payload: bytesOf(3, 500), ...to });
  const [data] = await once(socket, "data");
  sameBytes(data, bytesOf(3, 500));
  socket.destroy();
  let last;
  do last = await guest.expect(SHUTDOWN); while (last.flags !== ShutdownFlag.BOTH);
  await guest.send({ op: RST, ...to });
  await eventually("it is over", () => device.counters.connections === 0);

  for (
    const text of [
      "CONNECT\n",
      "CONNECT 4294967296\n",
      "connect x\n",
      "GET / HTTP/1.1\r\n\r\n",
      "\n",
      "x".repeat(40),
    ]
  ) {
    const bad = await dialUnix(t, unixPath, text);
    await closing(bad);
  }
  const refused = await dialUnix(t, unixPath, "CONNECT 1\n");
  const { srcPort: port } = await guest.expect(REQUEST);
  await guest.send({ op: RST, srcPort: 1, dstPort: port });
  await closing(refused);
  guest.close();
  await eventually("it is gone", () => !device.running);
  const alone = await dialUnix(t, unixPath, "CONNECT 1\n");
  await closing(alone);
  device.close();
  assert.ok(!existsSync(unixPath));
});

test("the guest connects to a Unix socket of the host", LIMIT, async (t) => {
  const unixPath = join(tempDir(t), "v");
  const { driver, device } = await open(t, { unixPath });
  const guest = await driver();
  const server = createServer({ allowHalfOpen: true });
  server.listen(`${unixPath}_77`);
  onEnd(t, () => void server.close());
  await once(server, "listening");
  const connection = once(server, "connection");
  await guest.send({ op: REQUEST, dstPort: 77 });
  const [socket] = await connection as [Socket];
  onEnd(t, () => void socket.destroy());
  await guest.expect(RESPONSE);
  // The guest ends its half, the host still sends; then the host leaves.
  await guest.send({ op: RW, payload: bytesOf(1, 60000), dstPort: 77 });
  await guest.send({ op: SHUTDOWN, flags: ShutdownFlag.SEND, dstPort: 77 });
  let read = 0;
  socket.on("data", (chunk: Uint8Array) => read += chunk.length);
  await once(socket, "end");
  assert.equal(read, 60000);
  socket.end(bytesOf(2, 5000));
  let got = 0;
  let packet;
  while ((packet = (await guest.take(1))[0]).op !== SHUTDOWN) got += packet.payload.length;
  assert.equal(got, 5000);
  while (packet.flags !== ShutdownFlag.BOTH) packet = await guest.expect(SHUTDOWN);
  await guest.send({ op: RST, dstPort: 77 });
  await eventually("it is over", () => device.counters.connections === 0);
  await guest.send({ op: REQUEST, dstPort: 78 });
  await guest.expect(RST);
});

test("a guest that has closed loses nothing that it sent before", LIMIT, async (t) => {
  const unixPath = join(tempDir(t), "v");
  const { driver, device } = await open(t, { unixPath });
  const guest = await driver();
  const server = createServer({ pauseOnConnect: true });
  server.listen(`${unixPath}_77`);
  onEnd(t, () => void server.close());
  await once(server, "listening");
  const connection = once(server, "connection");
  await guest.send({ op: REQUEST, dstPort: 77 });
  const [socket] = await connection as [Socket];
  onEnd(t, () => void socket.destroy());
  await guest.expect(RESPONSE);
  let sent = 0;
  // Until the socket takes no more, and some of it has to wait here.
  for (let forwarded = 0; sent - forwarded <= 100_000;) {
    await guest.send({ op: RW, payload: bytesOf(sent, 30_000), dstPort: 77 });
    sent += 30_000;
    await guest.send({ op: CREDIT_REQUEST, dstPort: 77 });
    forwarded = (await guest.expect(CREDIT_UPDATE)).fwdCnt;
  }
  await guest.send({ op: SHUTDOWN, flags: ShutdownFlag.BOTH, dstPort: 77 });
  await guest.send({ op: RST, dstPort: 77 });
  await aWhile();
  assert.equal(guest.received.length, 0);
  let got = 0;
  socket.on("data", (chunk: Uint8Array) => got += chunk.length);
  await closing(socket);
  assert.equal(got, sent);
  assert.equal(device.counters.connections, 0);
});

test("guests of a group reach each other, others do not", LIMIT, async (t) => {
  const group = new VsockGroup();
  const three = await open(t, { guestCid: 3, groups: [group] });
  const four = await open(t, { guestCid: 4, groups: [group] });
  const five = await open(t, { guestCid: 5 });
  assert.deepEqual(group.cids, [3, 4]);
  assert.throws(() => new VsockDevice({ guestCid: 3, groups: [group] }), /CID 3 is in this group/);
  const [a, b, c] = [await three.driver(), await four.driver(), await five.driver()];
  for (const type of [VsockType.STREAM, VsockType.SEQPACKET]) {
    await a.send({ op: REQUEST, dstCid: 4, type });
    const request = await b.expect(REQUEST);
    assert.deepEqual([request.srcCid, request.srcPort, request.dstPort, request.type], [3, 1000, 1234, type]);
    await aWhile();
    assert.equal(a.received.length, 0, "not before the other accepts");
    const back = { dstCid: 3, srcPort: 1234, dstPort: 1000, type };
    await b.send({ op: RESPONSE, ...back });
    await a.expect(RESPONSE);
    const flags = type === VsockType.SEQPACKET ? 3 : 0;
    await a.send({ op: RW, dstCid: 4, type, payload: bytesOf(1, 10_000), flags });
    const parts = await b.take(3);
    assert.deepEqual(parts.map(({ flags }) => flags), [0, 0, flags]);
    sameBytes(new Uint8Array(parts.flatMap(({ payload }) => [...payload])), bytesOf(1, 10_000));
    // One that does not read stops the other, in bounds.
    await b.send({ op: CREDIT_UPDATE, ...back, bufAlloc: 10_000, fwdCnt: 0 });
    for (let i = 0; i < 26; i++) {
      await a.send({ op: RW, dstCid: 4, type, payload: bytesOf(i, 10_000), flags });
    }
    await b.expect(CREDIT_REQUEST);
    await aWhile();
    assert.equal(b.received.length, 0);
    await b.send({ op: CREDIT_UPDATE, ...back, bufAlloc: 1 << 20, fwdCnt: 10_000 });
    await eventually(
      "all of it",
      () => b.received.reduce((sum, { payload }) => sum + payload.length, 0) === 260_000,
    );
    b.received.length = a.received.length = 0;
    await b.send({ op: SHUTDOWN, flags: ShutdownFlag.BOTH, ...back });
    await b.expect(RST);
    let packet;
    while ((packet = (await a.take(1))[0]).op !== SHUTDOWN);
    assert.equal(packet.flags, ShutdownFlag.BOTH);
    await a.send({ op: RST, dstCid: 4, type });
  }
  await a.send({ op: REQUEST, dstCid: 5 });
  await a.expect(RST);
  await c.send({ op: REQUEST, dstCid: 3 });
  await c.expect(RST);
  // A port that the other refuses, and another that leaves.
  await a.send({ op: REQUEST, dstCid: 4 });
  await b.expect(REQUEST);
  await b.send({ op: RST, dstCid: 3, srcPort: 1234, dstPort: 1000 });
  await a.expect(RST);
  await a.send({ op: REQUEST, dstCid: 4 });
  await b.expect(REQUEST);
  await b.send({ op: RESPONSE, dstCid: 3, srcPort: 1234, dstPort: 1000 });
  await a.expect(RESPONSE);
  b.close();
  await a.expect(RST);
});
