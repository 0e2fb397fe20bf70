import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { Struct, u16, u32 } from "../../src/protocol/struct.ts";
import { Chain, MAX_WINDOW } from "../../src/virtqueue/chain.ts";
import { file, guestMemory, PAGE, region } from "../memory/memory_file.ts";

const pages = 64;

/** A request whose readable and writable bytes lie in pieces of the given lengths. */
function request(t: TestContext, readable: readonly number[], writable: readonly number[]): Chain {
  const memory = guestMemory(t);
  const target = memory.add(region(file(t, "chain", pages), 0, pages));
  const chain = new Chain(0);
  let at = 0;
  for (const [segments, lengths] of [[chain.readable, readable], [chain.writable, writable]] as const) {
    for (const length of lengths) {
      segments.push(target, at, length);
      at += length + 3;
    }
  }
  chain.readable.copyFrom(Uint8Array.from({ length: chain.readable.byteLength }, (_, i) => i + 1));
  return chain;
}

function written(chain: Chain): number[] {
  const target = new Uint8Array(chain.writable.byteLength);
  chain.writable.copyTo(target);
  return [...target];
}

const header = new Struct<{ type: number; length: number }>({ type: u16, length: u32 });

test("reading goes on where it stopped", { timeout: 5000 }, (t) => {
  const chain = request(t, [2, 4, 1], []);
  assert.deepEqual([...chain.read(3)], [1, 2, 3]);
  assert.deepEqual([...chain.read(0)], []);
  assert.deepEqual([...chain.read()], [4, 5, 6, 7]);
  assert.deepEqual([...chain.read()], []);
  assert.deepEqual([...chain.read(5)], []);
});

test("more than there is gives what there is", { timeout: 5000 }, (t) => {
  const chain = request(t, [2, 2], []);
  assert.deepEqual([...chain.read(100)], [1, 2, 3, 4]);
});

test("what was read is a copy", { timeout: 5000 }, (t) => {
  const chain = request(t, [2], []);
  const copy = chain.read();
  chain.readable.setUint8(0, 99);
  assert.deepEqual([...copy], [1, 2]);
});

test("a structure is read however the driver cut it", { timeout: 5000 }, (t) => {
  for (const cuts of [[10], [3, 7], [1, 1, 1, 1, 1, 1, 1, 1, 2]]) {
    const chain = request(t, cuts, []);
    assert.deepEqual(chain.readStruct(header), { type: 0x0201, length: 0x0807_0605 });
    assert.deepEqual([...chain.read()], [9, 10]);
  }
});

test("a structure that is cut off is refused", { timeout: 5000 }, (t) => {
  assert.throws(() => request(t, [7], []).readStruct(header), {
    name: "FieldError",
    message: "structure must be at least 8 bytes, got 7 bytes",
  });
});

test("writing goes on where it stopped, and counts", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [2, 3]);
  assert.equal(chain.write(new Uint8Array([1])), 1);
  assert.equal(chain.write(new Uint8Array([2, 3])), 2);
  assert.equal(chain.written, 3);
  assert.deepEqual(written(chain), [1, 2, 3, 0, 0]);
});

test("what finds no room is left out", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [2, 1]);
  assert.equal(chain.write(new Uint8Array([1, 2, 3, 4])), 3);
  assert.equal(chain.write(new Uint8Array([5])), 0);
  assert.equal(chain.written, 3);
});

test("a structure is written", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [3, 7]);
  assert.equal(chain.writeStruct(header, { type: 0x0201, length: 0x0807_0605 }), 8);
  assert.deepEqual(written(chain), [1, 2, 0, 0, 5, 6, 7, 8, 0, 0]);
});

test("a callback fills each piece in place", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [2, 3]);
  chain.write(new Uint8Array([9]));
  const sizes: number[] = [];
  const count = chain.write((bytes) => {
    sizes.push(bytes.length);
    bytes.fill(sizes.length);
  });
  assert.equal(count, 4);
  assert.deepEqual(sizes, [1, 3]);
  assert.deepEqual(written(chain), [9, 1, 2, 2, 2]);
  assert.equal(chain.written, 5);
});

test("no window has more than 65536 bytes: crypto.getRandomValues takes no more", { timeout: 5000 }, (t) => {
  assert.equal(MAX_WINDOW, 65536);
  const chain = request(t, [], [2 * 65536 + 5, 65536, 7]);
  const sizes: number[] = [];
  chain.write((bytes) => {
    sizes.push(bytes.length);
    return crypto.getRandomValues(bytes);
  });
  assert.deepEqual(sizes, [65536, 65536, 5, 65536, 7]);
  assert.equal(chain.written, 3 * 65536 + 12);
});

test("a callback that fills only a part ends the writing there", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [4, 4]);
  let calls = 0;
  assert.equal(
    chain.write((bytes) => {
      calls++;
      bytes[0] = 7;
      return 1;
    }),
    1,
  );
  assert.deepEqual([calls, chain.written], [1, 1]);
  assert.equal(chain.write(() => 2), 2, "the next goes on behind it");
  assert.equal(chain.write(() => 0), 0);
  assert.equal(chain.written, 3);
  assert.deepEqual(written(chain).slice(0, 2), [7, 0]);
});

test("a callback cannot have filled more than there was, nor less than nothing", { timeout: 5000 }, (t) => {
  const chain = request(t, [], [4]);
  assert.equal(chain.write(() => -5), 0);
  assert.equal(chain.write(() => 100), 4);
  assert.equal(chain.written, 4);
});

test("without room no callback is called", { timeout: 5000 }, (t) => {
  const chain = request(t, [3], []);
  assert.equal(chain.write(() => assert.fail("called")), 0);
});

test("a chain starts over for the next request", { timeout: 5000 }, (t) => {
  const chain = request(t, [4], [4]);
  chain.read(2);
  chain.write(new Uint8Array(3));
  chain.reset();
  assert.deepEqual([chain.written, chain.readable.byteLength, chain.writable.byteLength], [0, 0, 0]);
  const target = guestMemory(t).add(region(file(t, "next", 1), 0, 1));
  chain.readable.push(target, 0, PAGE);
  assert.equal(chain.read().length, PAGE, "from the first byte");
});

test("a pinned request keeps its memory, on both sides", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  const fd = file(t, "pinned-chain", 2);
  const [question, answer] = [memory.add(region(fd, 0, 1)), memory.add(region(fd, 1, 1, 1))];
  const chain = new Chain(0);
  chain.readable.push(question, 0, 4);
  chain.writable.push(answer, 8, 4);
  chain.pin();
  memory.clear();
  assert.equal(chain.write(new Uint8Array([1, 2])), 2);
  assert.equal(chain.read().length, 4);
  chain.unpin();
  assert.deepEqual([question.bytes.length, answer.bytes.length], [0, 0]);
});
