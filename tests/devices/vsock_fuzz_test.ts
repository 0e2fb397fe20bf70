import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { VsockDevice, VsockGroup, VsockOp, VsockType } from "../../src/devices/vsock/mod.ts";
import { eventually, Scene } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { VsockDriver } from "./vsock_driver.ts";

const RUNS = { seed: 19, numRuns: 80 };

/** Numbers at which something may turn over. */
const u32 = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 4, 5, 1234, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);

/** Few ports, so that packets meet connections. */
const PORTS = [1, 1234, 0xffff_ffff];
const port = fc.constantFrom(...PORTS);

const packet = fc.record({
  srcCid: fc.oneof({ weight: 9, arbitrary: fc.constant(3) }, { weight: 1, arbitrary: u32 }),
  dstCid: fc.oneof({ weight: 7, arbitrary: fc.constant(2) }, { weight: 2, arbitrary: fc.constant(4) }, u32),
  srcPort: port,
  dstPort: port,
  type: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(1, 2) }, fc.integer({ min: 0, max: 0xffff })),
  op: fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 6, 7) },
    fc.integer({ min: 0, max: 0xffff }),
  ),
  flags: fc.oneof(fc.constantFrom(0, 1, 2, 3), u32),
  bufAlloc: u32,
  fwdCnt: u32,
  payload: fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.constantFrom(...[4000, 65000].map((n) => new Uint8Array(n))),
  ),
});

const step = fc.oneof(
  { weight: 12, arbitrary: packet.map((each) => ({ kind: "packet" as const, packet: each })) },
  {
    weight: 1,
    arbitrary: fc.uint8Array({ maxLength: 100 }).map((bytes) => ({ kind: "bytes" as const, bytes })),
  },
  {
    weight: 1,
    arbitrary: fc.record({ claimed: u32, length: fc.integer({ min: 0, max: 100 }) }).map((short) => ({
      kind: "short" as const,
      ...short,
    })),
  },
);

test("whatever a guest sends, its neighbours and the process are well", { timeout: 60_000 }, async (t) => {
  const group = new VsockGroup();
  const errors: unknown[] = [];
  const options = {
    groups: [group],
    maxConnections: 4,
    bufferSize: 1 << 16,
    listen: {
      1234: ({ readable, writable }: { readable: ReadableStream; writable: WritableStream }) =>
        readable.pipeTo(writable).catch(() => {}),
      1: () => {},
    },
    onError: (error: unknown) => errors.push(error),
  };
  const unixPath = join(tempDir(t), "u");
  const sockets = new Set<Socket>();
  // Behind one port is a socket that echoes.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.pipe(socket);
  });
  server.listen(`${unixPath}_${0xffff_ffff}`);
  await once(server, "listening");
  onEnd(t, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const device = new VsockDevice({ guestCid: 3, unixPath, ...options });
  const neighbour = new VsockDevice({ guestCid: 4, ...options });
  onEnd(t, () => {
    device.close();
    neighbour.close();
  });
  const [scene, other] = [await Scene.open(t, device), await Scene.open(t, neighbour)];
  const well = await VsockDriver.connect(t, other.path, { cid: 4 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 20, maxLength: 200, size: "max" }),
      fc.boolean(),
      async (steps, takes) => {
        const guest = await VsockDriver.connect(t, scene.path, { buffers: takes ? 16 : 0 });
        for (const each of steps) {
          if (each.kind === "packet") {
            await guest.send(each.packet);
          } else if (each.kind === "bytes") {
            await guest.sendBytes(each.bytes.length === 0 ? new Uint8Array(1) : each.bytes);
          } else {
            const bytes = new Uint8Array(44 + each.length);
            const view = new DataView(bytes.buffer);
            view.setUint32(0, 3, true);
            view.setUint32(8, 2, true);
            view.setUint32(20, 1234, true);
            view.setUint32(24, each.claimed, true);
            view.setUint16(28, VsockType.STREAM, true);
            view.setUint16(30, VsockOp.RW, true);
            await guest.sendBytes(bytes);
          }
          assert.ok(device.counters.connections <= 4);
        }
        // Whatever state it is in, it answers: a new connection echoes.
        if (!takes) guest.offer(16);
        for (const srcPort of PORTS) {
          for (const dstPort of PORTS) {
            for (const dstCid of [2, 4]) await guest.send({ op: VsockOp.RST, srcPort, dstPort, dstCid });
          }
        }
        await guest.send({ op: VsockOp.REQUEST, srcPort: 99, bufAlloc: 100 });
        await guest.send({ op: VsockOp.RW, srcPort: 99, payload: Uint8Array.of(1, 2, 3), bufAlloc: 100 });
        for (const deadline = performance.now() + 20_000;;) {
          const packets = await guest.take(1);
          // No answer is longer than what it holds, and all are from somebody that was spoken to.
          const found = packets.find(({ op, dstPort }) => op === VsockOp.RW && dstPort === 99);
          if (found !== undefined) {
            assert.deepEqual([...found.payload], [1, 2, 3]);
            break;
          }
          assert.ok(performance.now() < deadline, "no echo");
        }
        guest.close();
        while (device.running) await new Promise((resolve) => setTimeout(resolve, 1));
        assert.equal(device.counters.connections, 0);
        await eventually("the sockets are closed", () => sockets.size === 0);
      },
    ),
    RUNS,
  );
  // It was no idle talk.
  const { opened, refused, malformed, sentBytes } = device.counters;
  assert.ok(
    opened > 200 && refused > 100 && malformed > 100 && sentBytes > 1 << 20,
    JSON.stringify(device.counters),
  );
  assert.ok(neighbour.counters.opened > 20, JSON.stringify(neighbour.counters));
  // The neighbour has had its connections cut off, and goes on.
  well.received.length = 0;
  await well.send({ op: VsockOp.REQUEST, srcPort: 7 });
  await well.expect(VsockOp.RESPONSE);
  // The socket of one port takes bytes in a row only.
  assert.deepEqual(errors.filter((error) => !/EPROTOTYPE/.test(String(error))), []);
  assert.deepEqual([...scene.log.problems, ...other.log.problems], []);
});
