import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { bufferAt } from "../../ffi/deno.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { ByteQueue } from "../../src/devices/vsock/byte_queue.ts";
import { Segments } from "../../src/memory/segments.ts";
import { file, guestMemory, PAGE, region } from "../memory/memory_file.ts";
import { bytesOf, LIMIT, sameBytes } from "../session/scene.ts";

const CAPACITY = 10_000;

const operation = fc.oneof(
  fc.record({ do: fc.constant("append" as const), length: fc.nat(5000) }),
  fc.record({ do: fc.constant("mark" as const), record: fc.boolean() }),
  fc.record({ do: fc.constant("drop" as const), length: fc.nat(6000) }),
  fc.record({ do: fc.constant("clear" as const) }),
);

test("a queue of bytes gives back what it was given, in order", LIMIT, (t) => {
  const memory = guestMemory(t);
  memory.replace([region(file(t, "bytes", 2), 0, 2)]);
  const [whole] = memory.regions;
  const iovec = new Iovec();
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const queue = new ByteQueue(CAPACITY);
      let model: number[] = [];
      let seed = 0;
      for (const each of operations) {
        if (each.do === "append") {
          const bytes = bytesOf(++seed, each.length);
          whole.bytes.set(bytes, 100);
          const segments = new Segments();
          segments.push(whole, 0, 2 * PAGE);
          if (model.length + each.length > CAPACITY) {
            assert.throws(() => queue.append(segments, 100, each.length), RangeError);
          } else {
            queue.append(segments, 100, each.length);
            model.push(...bytes);
          }
        } else if (each.do === "drop") {
          const length = Math.min(each.length, model.length);
          queue.drop(length);
          model = model.slice(length);
        } else if (each.do === "clear") {
          queue.clear();
          model = [];
        }
        assert.equal(queue.length, model.length);
        const expected = Uint8Array.from(model);
        sameBytes(queue.copy(CAPACITY), expected);
        const front = queue.front(50);
        assert.ok(front.length > 0 || model.length === 0);
        sameBytes(front, expected.subarray(0, front.length));
        iovec.clear();
        queue.toIovec(iovec, 3000);
        assert.equal(iovec.byteLength, Math.min(3000, model.length));
        // In one piece, or in two where they turn over.
        const first = queue.front(iovec.byteLength).length;
        let at = 0;
        for (const [i, size] of [first, iovec.byteLength - first].entries()) {
          if (size === 0) continue;
          const piece = new Uint8Array(bufferAt(BigInt(iovec.addressAt(i)), size));
          sameBytes(piece, expected.subarray(at, at + size), "a piece by address");
          at += size;
        }
      }
    }),
    { seed: 5, numRuns: 60 },
  );
});

test("messages are marked, and their number has a limit", LIMIT, (t) => {
  const memory = guestMemory(t);
  memory.replace([region(file(t, "bytes", 1), 0, 1)]);
  const segments = new Segments();
  segments.push(memory.regions[0], 0, PAGE);
  const queue = new ByteQueue(4096);
  assert.equal(queue.messageLength, -1);
  queue.append(segments, 0, 10);
  assert.equal(queue.messageLength, -1);
  queue.mark(true);
  queue.mark(false);
  queue.append(segments, 0, 7);
  assert.deepEqual([queue.messageLength, queue.endsRecord, queue.open], [10, true, 7]);
  queue.unmark(4);
  queue.drop(4);
  assert.deepEqual([queue.messageLength, queue.endsRecord, queue.open], [6, true, 7]);
  queue.unmark();
  queue.drop(6);
  assert.deepEqual([queue.messageLength, queue.endsRecord, queue.length], [0, false, 7]);
  queue.unmark();
  assert.deepEqual([queue.messageLength, queue.length, queue.open], [-1, 7, 7]);
  let count = 0;
  while (queue.mark(false)) count++;
  assert.equal(count, 4096 / 16);
  // A long row of them moves on without keeping what is gone.
  for (let i = 0; i < 5000; i++) {
    queue.unmark();
    assert.ok(queue.mark(i % 2 === 1));
  }
  assert.equal(queue.endsRecord, (5000 - 4096 / 16) % 2 === 1);
});
