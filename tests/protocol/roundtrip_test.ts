import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { FieldError } from "../../src/protocol/error.ts";
import { codecOf, payloads, type PayloadTypes } from "../../src/protocol/payloads.ts";

const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const i64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });

// Objects with the usual prototype, as the codec makes them.
const plain = { noNullPrototype: true } as const;

/** A start and a length that end within 64 bits. */
const range = fc.tuple(u64, u64).map(([a, b]) => a < b ? [a, b - a] as const : [b, a - b] as const);

/** Two starts and a length, each ending within 64 bits. */
const ranges = fc.tuple(range, u64).map(([[start, length], other]) => ({
  start,
  other: other % (2n ** 64n - length),
  length,
}));

const region = fc.tuple(ranges, u64)
  .filter(([{ length }]) => length > 0n)
  .map(([{ start, other, length }, offset]) => ({
    guestAddress: start,
    size: length,
    userAddress: other,
    mmapOffset: offset % (2n ** 64n - length),
  }));

const bytesOf = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

const arbitraries: { readonly [K in keyof PayloadTypes]: fc.Arbitrary<PayloadTypes[K]> } = {
  none: fc.constant(undefined),
  u64,
  vringState: fc.record({ index: u32, num: u32 }, plain),
  vringDescriptor: fc.record({ index: u8, noDescriptor: fc.boolean() }, plain),
  vringAddress: fc.record({
    index: u32,
    flags: fc.constantFrom(0, 1),
    descriptor: u64.map((each) => each & ~15n),
    used: u64.map((each) => each & ~3n),
    available: u64.map((each) => each & ~1n),
    log: u64,
  }, plain),
  memoryRegions: fc.array(region, { maxLength: 32 }),
  memoryRegion: region,
  addedRegion: fc.option(region, { nil: undefined }),
  log: range.map(([offset, size]) => ({ offset, size })),
  iotlb: fc.tuple(ranges, u8, u8).map(([{ start, other, length }, permission, type]) => ({
    iova: start,
    size: length,
    userAddress: other,
    permission: permission % 4,
    type: 1 + type % 4,
  })),
  config: fc.tuple(u8, u32, fc.uint8Array({ maxLength: 256 })).map(([offset, flags, data]) => ({
    offset,
    flags,
    data: data.slice(0, 256 - offset),
  })),
  vringArea: fc.record({ index: u8, noDescriptor: fc.boolean(), size: u64, offset: u64 }, plain),
  inflight: fc.tuple(range, u16, u16).map(([[mmapOffset, mmapSize], numQueues, queueSize]) => ({
    mmapSize,
    mmapOffset,
    numQueues: Math.max(1, numQueues),
    queueSize: Math.max(1, queueSize),
  })),
  uuid: bytesOf(16),
  requestedUuid: fc.option(bytesOf(16), { nil: undefined }),
  deviceState: fc.record({ direction: fc.constantFrom(0, 1), phase: fc.constant(0) }, plain),
  deviceStateReply: fc.record({ error: u8, noDescriptor: fc.boolean() }, plain),
  shmemMapping: fc.tuple(u8, ranges, fc.boolean()).map(([shmid, { start, other, length }, writable]) => ({
    shmid,
    fdOffset: start,
    shmOffset: other,
    length,
    flags: writable ? 1n : 0n,
  })),
  shmemConfig: fc.record(
    { numRegions: u32, sizes: fc.array(u64, { minLength: 256, maxLength: 256 }) },
    plain,
  ),
  cryptoSession: fc.record({ opCode: u64, session: bytesOf(1056), sessionId: i64 }, plain),
};

test("every kind of payload is generated", { timeout: 5000 }, () => {
  assert.deepEqual(Object.keys(arbitraries), Object.keys(payloads));
});

const slow: readonly string[] = ["shmemConfig", "cryptoSession"];

for (const [name, arbitrary] of Object.entries(arbitraries)) {
  const kind = name as keyof PayloadTypes;
  const codec = codecOf(kind);
  const parameters = {
    seed: 0x5eed,
    numRuns: slow.includes(kind) ? 20 : 200,
    endOnFailure: slow.includes(kind),
  };

  test(`${kind}: what was encoded is decoded, wherever the bytes lie`, { timeout: 10_000 }, () => {
    fc.assert(
      fc.property(arbitrary as fc.Arbitrary<unknown>, fc.nat(17), (value, before) => {
        const encoded = codec.encode(value);
        assert.ok(encoded.length >= codec.minimum && encoded.length <= codec.maximum);
        // In the middle of other bytes, as in a receive buffer.
        const around = new Uint8Array(before + encoded.length + 9).fill(0xa5);
        around.set(encoded, before);
        const decoded = codec.decode(around.subarray(before, before + encoded.length));
        assert.deepEqual(decoded, value);
        assert.deepEqual(codec.encode(decoded), encoded);
        // The value is a copy: the buffer is used again for the next message.
        around.fill(0x5a);
        assert.deepEqual(decoded, value);
      }),
      parameters,
    );
  });

  test(`${kind}: any bytes of a fitting number are a value or a FieldError`, { timeout: 10_000 }, () => {
    const bytes = fc.uint8Array({ minLength: codec.minimum, maxLength: codec.maximum });
    const sparse = bytes.map((each) => each.map((byte, i) => i % 3 === 0 ? byte : 0));
    fc.assert(
      fc.property(fc.oneof(bytes, sparse), (payload) => {
        try {
          codec.decode(payload);
        } catch (error) {
          assert.ok(error instanceof FieldError, String(error));
        }
      }),
      parameters,
    );
  });
}
