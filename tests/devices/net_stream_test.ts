import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { NetDevice, openNetwork, parseMac, StreamNetwork } from "../../src/devices/net/mod.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { frameOf, mac, NetDriver } from "./net_driver.ts";

const A = "02:00:00:00:00:0a";
const B = "02:00:00:00:00:0b";

/** A peer at the other end of a stream, written without the toolkit. */
class Wire {
  readonly frames: Uint8Array[] = [];
  readonly socket: Socket;
  closed = false;
  #bytes = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("close", () => this.closed = true);
    socket.on("data", (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk as Buffer]);
      while (this.#bytes.length >= 4 && this.#bytes.length >= 4 + this.#bytes.readUInt32BE(0)) {
        const end = 4 + this.#bytes.readUInt32BE(0);
        this.frames.push(this.#bytes.subarray(4, end));
        this.#bytes = this.#bytes.subarray(end);
      }
    });
  }

  static framed(frame: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(4 + frame.length);
    new DataView(bytes.buffer).setUint32(0, frame.length);
    bytes.set(frame, 4);
    return bytes;
  }
}

interface Listening {
  readonly path: string;
  readonly wires: Wire[];
  readonly server: Server;
}

/** A peer that listens, as passt does. */
function listening(scope: Scope): Listening {
  const path = join(tempDir(scope), "wire.sock");
  const wires: Wire[] = [];
  const server = createServer((socket) => void wires.push(new Wire(socket)));
  server.listen(path);
  onEnd(scope, () => {
    for (const { socket } of wires) socket.destroy();
    server.close();
  });
  return { path, wires, server };
}

async function open(scope: Scope, network: StreamNetwork): Promise<{ scene: Scene; card: NetDevice }> {
  onEnd(scope, () => network.close());
  const card = new NetDevice({ network });
  return { scene: await Scene.open(scope, card), card };
}

test("frames go both ways, however the stream cuts them", LIMIT, async (t) => {
  const { path, wires } = listening(t);
  const network = new StreamNetwork({ path });
  const { scene } = await open(t, network);
  const guest = await NetDriver.connect(t, scene.path, { buffers: 40 });
  await eventually("the peer is there", () => wires.length === 1 && network.connected);
  const [wire] = wires;
  const sent = [0, 46, 1500, 9000, 60_000].map((length) => frameOf(B, A, bytesOf(length, length)));
  for (const frame of sent) await guest.send(frame, { cuts: [5, 12, 30] });
  await eventually("all are there", () => wire.frames.length === sent.length);
  sent.forEach((frame, i) => sameBytes(wire.frames[i], frame));
  const all = Buffer.concat(sent.map((frame) => Wire.framed(frame)));
  for (let at = 0; at < all.length;) {
    const size = at < 200 ? 1 : 7001;
    wire.socket.write(all.subarray(at, at + size));
    if (at < 200) await new Promise((resolve) => setTimeout(resolve, 0));
    at += size;
  }
  const got = await guest.take(sent.length);
  sent.forEach((frame, i) => sameBytes(got[i].frame, frame));
});

test("who is slow is waited for, and nothing is lost", { timeout: 30_000 }, async (t) => {
  const { path, wires } = listening(t);
  const network = new StreamNetwork({ path });
  const { scene, card } = await open(t, network);
  const guest = await NetDriver.connect(t, scene.path, { buffers: 0, size: 256 });
  await eventually("the peer is there", () => wires.length === 1 && network.connected);
  const [wire] = wires;
  // The peer does not read: after its socket's buffer and ours are full, the guest waits.
  wire.socket.pause();
  let done = 0;
  const count = 200;
  const payload = bytesOf(1, 8000);
  for (let i = 0; i < count; i++) {
    payload[0] = i;
    void guest.send(frameOf(B, A, payload)).then(() => done++, () => {});
  }
  await aWhile();
  await aWhile();
  assert.ok(done < count, "the guest waits");
  wire.socket.resume();
  await eventually("all have come", () => wire.frames.length === count);
  wire.frames.forEach((frame, i) => assert.equal(frame[14], i));
  // And the guest has no buffers: the peer waits.
  for (let i = 0; i < count; i++) wire.socket.write(Wire.framed(frameOf(A, B, Uint8Array.of(i))));
  await aWhile();
  for (let i = 0; i < count; i += 10) {
    guest.offer(10, 0, false);
    const got = await guest.take(10);
    got.forEach(({ frame }, k) => assert.equal(frame[14], i + k));
  }
  assert.equal(card.counters.dropped, 0);
});

test("a peer that goes is connected to again, and the guest does not hang meanwhile", LIMIT, async (t) => {
  const { path, wires } = listening(t);
  const network = new StreamNetwork({ path });
  const { scene } = await open(t, network);
  const guest = await NetDriver.connect(t, scene.path);
  await eventually("the peer is there", () => wires.length === 1 && network.connected);
  wires[0].socket.destroy();
  await eventually("it is missed", () => !network.connected);
  await guest.send(frameOf(B, A, Uint8Array.of(1)));
  await eventually("it is there again", () => wires.length === 2 && network.connected);
  await guest.send(frameOf(B, A, Uint8Array.of(2)));
  await eventually("and gets frames", () => wires[1].frames.length === 1);
  assert.equal(wires[1].frames[0][14], 2);
});

for (
  const [what, bytes] of [["no frame", [0, 0, 0, 13]], ["too long", [0, 1, 0, 19]], ["absurd", [
    255,
    255,
    255,
    255,
  ]]] as const
) {
  test(`a peer whose frame is ${what} is left`, LIMIT, async (t) => {
    const { path, wires } = listening(t);
    const said: string[] = [];
    const network = new StreamNetwork({
      path,
      onPeer: (text, error) => said.push(`${text}: ${(error as Error | undefined)?.message}`),
    });
    const { scene } = await open(t, network);
    await NetDriver.connect(t, scene.path);
    await eventually("the peer is there", () => wires.length === 1 && network.connected);
    wires[0].socket.write(Uint8Array.from(bytes));
    await eventually("it is left", () => wires[0].closed);
    assert.match(said[1], /the peer has gone: a frame must have 14 to 65554 bytes, got \d+/);
  });
}

test("one peer at a time may come to a network that listens; the path goes with it", LIMIT, async (t) => {
  const path = join(tempDir(t), "wire.sock");
  const network = new StreamNetwork({ path, listen: true });
  const { scene } = await open(t, network);
  const guest = await NetDriver.connect(t, scene.path);
  const first = new Wire(connect(path));
  await eventually("the peer is there", () => network.connected);
  const second = new Wire(connect(path));
  await eventually("the second is turned away", () => second.closed);
  first.socket.write(Wire.framed(frameOf(A, B, Uint8Array.of(5))));
  assert.equal((await guest.take(1))[0].frame[14], 5);
  network.close();
  await eventually("the first learns of the end", () => first.closed);
  assert.equal(existsSync(path), false);
});

test("a network by its short name, or what is wrong with it", LIMIT, (t) => {
  for (const uri of ["switch", "echo", "null", "user", "generate:64"]) openNetwork(uri).close?.();
  for (
    const uri of [
      "",
      "tap",
      "tap:",
      "stream:",
      "switch:x",
      "echo:1",
      "wifi",
      "generate:13",
      "generate:x",
      "generate:70000",
    ]
  ) {
    assert.throws(() => openNetwork(uri), TypeError, uri);
  }
  assert.throws(() => openNetwork("tap:a/b"), /a network interface's name/);
  assert.throws(() => openNetwork(`listen:${tempDir(t)}`), /EADDRINUSE/);
  assert.deepEqual(parseMac("52:54:00:aB:0c:ff"), Uint8Array.of(0x52, 0x54, 0, 0xab, 0x0c, 0xff));
  for (const text of ["", "52:54:00:12:34", "52-54-00-12-34-56", "52:54:00:12:34:5g", "01:00:5e:00:00:01"]) {
    assert.throws(() => parseMac(text), TypeError, text);
  }
});

test("the switch of the examples stops mail, and nothing else", LIMIT, async (t) => {
  const dir = tempDir(t);
  const path = join(dir, "net.sock");
  const source = readFileSync(join(root, "examples/net_switch.ts"), "utf8");
  assert.equal(source.split('"/tmp/net_switch.sock"').length, 2);
  const script = join(dir, "switch.ts");
  writeFileSync(script, source.replace('"/tmp/net_switch.sock"', JSON.stringify(path)));
  const child = startDeno(t, ["--no-lock", `--config=${join(root, "deno.json")}`, script]);
  await child.waitSocket(path);
  const [a, b] = [await NetDriver.connect(t, path), await NetDriver.connect(t, path)];
  const tcp = (port: number): Uint8Array => {
    const frame = new Uint8Array(60);
    frame.set([...mac(B), ...mac(A), 8, 0, 0x45]);
    frame[23] = 6;
    new DataView(frame.buffer).setUint16(36, port);
    return frame;
  };
  for (const port of [25, 80, 25, 26]) await a.send(tcp(port));
  const got = await b.take(2);
  assert.deepEqual(got.map(({ frame }) => frame[37]), [80, 26]);
  await aWhile();
  assert.deepEqual(b.received, []);
});
