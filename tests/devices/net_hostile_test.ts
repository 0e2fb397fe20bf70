import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  EchoNetwork,
  FunctionNetwork,
  NetDevice,
  type Network,
  SwitchNetwork,
} from "../../src/devices/net/mod.ts";
import { eventually, Scene } from "../session/scene.ts";
import { ALL, frameOf, NetDriver, PACKED } from "./net_driver.ts";

// A driver that says anything in its headers, and cuts its buffers in any way.

const A = "02:00:00:00:00:0a";
const B = "02:00:00:00:00:0b";
const SIZES = [0, 1, 2, 9, 10, 11, 12, 13, 25, 26, 27, 60, 1514, 4096, 65535, 65562, 65570, 70000];
/** What no device has a reason to write. */
const CANARY = 0xa5;

const u16 = fc.oneof(fc.constantFrom(0, 1, 13, 14, 20, 34, 54, 1500, 65534, 65535), fc.nat(65535));
const request = fc.record({
  header: fc.record({
    flags: fc.nat(255),
    gsoType: fc.oneof(fc.constantFrom(0, 1, 3, 4, 5, 0x80, 0x81, 0x84), fc.nat(255)),
    hdrLen: u16,
    gsoSize: u16,
    csumStart: u16,
    csumOffset: u16,
  }),
  cuts: fc.array(fc.oneof(fc.nat(40), fc.nat(3000)), { maxLength: 6 }),
  length: fc.oneof(fc.constantFrom(...SIZES), fc.nat(3000)),
  /** Bytes after the Ethernet header: an IP header, or anything. */
  kind: fc.constantFrom("ipv4", "ipv6", "vlan", "junk"),
  junk: fc.uint8Array({ minLength: 0, maxLength: 64 }),
  /** Sizes of receive buffers to put up before it. */
  room: fc.array(fc.oneof(fc.constantFrom(...SIZES.filter((size) => size > 0 && size < 5000)), fc.nat(200)), {
    maxLength: 6,
  }),
});

function bodyOf(kind: string, junk: Uint8Array, length: number): Uint8Array {
  const body = new Uint8Array(length);
  const start: Record<string, number[]> = {
    ipv4: [8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6],
    ipv6: [0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64],
    vlan: [0x81, 0, 0, 1, 8, 0, 0x46],
    junk: [],
  };
  body.set(start[kind].slice(0, length));
  body.set(junk.slice(0, Math.max(0, length - 40)), Math.min(40, length));
  return body;
}

for (const packed of [false, true]) {
  for (
    const [name, make] of [
      ["echo", () => new EchoNetwork()],
      ["switch", () => new SwitchNetwork()],
      ["function", () => new FunctionNetwork((frame, guest) => void guest.deliver(frame))],
    ] as readonly (readonly [string, () => Network])[]
  ) {
    for (const mergeable of [true, false]) {
      const title = `${name}, ${packed ? "packed" : "split"}${mergeable ? "" : ", no mergeable buffers"}`;
      test(`nothing that a driver says harms anyone: ${title}`, { timeout: 60_000 }, async (t) => {
        const errors: unknown[] = [];
        const card = new NetDevice({ network: make(), onError: (error) => errors.push(error) });
        const scene = await Scene.open(t, card);
        const withoutFeatures = packed ? 0n : PACKED;
        const features = mergeable ? ALL : ALL & ~(1n << 15n) & ~0x1f83n;
        const witness = await NetDriver.connect(t, scene.path, { withoutFeatures });
        await fc.assert(
          fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 12 }), async (requests) => {
            const ends: (() => void | Promise<void>)[] = [];
            const scope = { after: (end: () => void) => void ends.push(end) };
            try {
              const guest = await NetDriver.connect(scope, scene.path, {
                withoutFeatures,
                features,
                buffers: 0,
              });
              const [rx] = guest.rx;
              const [tx] = guest.tx;
              for (const { header, cuts, length, kind, junk, room } of requests) {
                for (const size of room) {
                  // Around each buffer are bytes that must stay.
                  const piece = guest.memory.allocate(size + 32);
                  piece.bytes.fill(CANARY);
                  const buffer = { guestAddress: piece.guestAddress + 16, length: size };
                  rx.request([], [buffer]).then((written) => {
                    assert.ok(written <= size, `${written} of ${size} bytes`);
                    const around = [...piece.bytes.subarray(0, 16), ...piece.bytes.subarray(16 + size)];
                    assert.ok(around.every((byte) => byte === CANARY), "written beside a buffer");
                    const after = piece.bytes.subarray(16 + written, 16 + size);
                    assert.ok(after.every((byte) => byte === CANARY), "written behind what was said");
                  }, () => {}).catch((error) => errors.push(error));
                }
                const body = bodyOf(kind, junk, length);
                if (length < 14) {
                  const piece = guest.memory.allocate(Math.max(1, length));
                  await tx.request([{ guestAddress: piece.guestAddress, length: piece.bytes.length }], []);
                } else {
                  const frame = frameOf(B, A, new Uint8Array(0));
                  await guest.send(Uint8Array.from([...frame.subarray(0, 12), ...body]).subarray(0, length), {
                    header,
                    cuts: [...cuts].sort((a, b) => a - b),
                  });
                }
              }
            } finally {
              for (const end of ends.reverse()) await end();
            }
          }),
          { numRuns: 25 },
        );
        assert.deepEqual(errors, []);
        // Whoever did nothing wrong is served as before.
        const before = card.counters.sentFrames;
        await witness.send(frameOf(B, A, Uint8Array.of(1)));
        await eventually("it was taken", () => card.counters.sentFrames > before);
        assert.deepEqual(scene.log.problems, []);
      });
    }
  }
}
