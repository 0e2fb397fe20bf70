import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { libc } from "../../ffi/deno.ts";
import { eventfd } from "../../ffi/eventfd.ts";
import { close, DescriptorBag, isOpen } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { Native } from "../../ffi/native.ts";
import { send, socketPair } from "../../ffi/socket.ts";
import { frontendMessages } from "../../src/protocol/messages.ts";
import { Connection, type Message } from "../../src/transport/connection.ts";
import { countMemoryFiles } from "../ffi/descriptors.ts";
import { hex } from "../protocol/hex.ts";
import { onEnd } from "../support/cleanup.ts";

/** A connection, and the bare socket at its other end. */
function connection(t: TestContext): [Connection, number] {
  const [ours, theirs] = socketPair();
  const made = new Connection(ours, frontendMessages);
  onEnd(t, () => {
    made.close();
    close(theirs);
  });
  return [made, theirs];
}

const out = new Native(8192);

/** Sends bytes as they stand. */
function say(socket: number, bytes: Uint8Array, fds: readonly number[] = []): void {
  out.bytes.set(bytes);
  assert.equal(send(socket, out.address, bytes.length, fds), bytes.length);
}

function message(received: Message | null | "end"): Message {
  if (received === null || received === "end") assert.fail(`no message: ${received}`);
  return received;
}

const getFeatures = hex("01 00 00 00 | 01 00 00 00 | 00*4");
const setNum = hex("08 00 00 00 | 09 00 00 00 | 08 00 00 00 | 02 00 00 00  80 00 00 00");

test("a message is put together from however many pieces it comes in", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  for (let i = 0; i < setNum.length - 1; i++) {
    say(theirs, setNum.subarray(i, i + 1));
    assert.equal(ours.receive(), null);
  }
  say(theirs, setNum.subarray(-1));
  const { name, header, payload } = message(ours.receive());
  assert.equal(name, "SET_VRING_NUM");
  assert.deepEqual(header, { request: 8, flags: 9, size: 8 });
  assert.deepEqual(payload, setNum.slice(12));
});

test("several that came at once are taken one by one", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  say(theirs, new Uint8Array([...getFeatures, ...setNum, ...getFeatures]));
  const names = [1, 2, 3].map(() => message(ours.receive()).name);
  assert.deepEqual(names, ["GET_FEATURES", "SET_VRING_NUM", "GET_FEATURES"]);
  assert.equal(ours.receive(), null);
});

test("descriptors go with the message they came with", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  const event = eventfd();
  onEnd(t, () => close(event));
  say(theirs, getFeatures);
  say(theirs, setNum, [event, event]);
  say(theirs, getFeatures, [event]);
  const counts = [1, 2, 3].map(() => {
    const { fds } = message(ours.receive());
    const { length } = fds;
    fds.close();
    return length;
  });
  assert.deepEqual(counts, [0, 2, 1]);
});

test("descriptors that come late in a message are its own all the same", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  const fd = memoryFile("late", 4096);
  onEnd(t, () => close(fd));
  say(theirs, setNum.subarray(0, 12), [fd]);
  say(theirs, setNum.subarray(12), [fd, fd]);
  const { fds } = message(ours.receive());
  assert.equal(fds.length, 3);
  fds.close();
  assert.equal(countMemoryFiles("late"), 1);
});

test("between messages a peer may leave, within one it may not", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  say(theirs, getFeatures);
  libc.shutdown(theirs, 1);
  message(ours.receive());
  assert.equal(ours.receive(), "end");

  const [other, left] = connection(t);
  say(left, setNum.subarray(0, 15));
  libc.shutdown(left, 1);
  assert.throws(() => other.receive(), {
    name: "ProtocolError",
    message: "SET_VRING_NUM: the peer left after 15 bytes of a message",
  });
});

test("a header that no message has is refused before its payload", { timeout: 5000 }, (t) => {
  for (
    const [wire, text] of [
      ["01 00 00 00 | 02 00 00 00 | 00*4", /^GET_FEATURES: header version must be 1, got 2$/],
      ["01 00 00 00 | 11 00 00 00 | 00*4", /^GET_FEATURES: reserved header flags must be 0, got 0x10$/],
      ["09 00 00 00 | 01 00 00 00 | 01 10 00 00", /^SET_VRING_ADDR: payload must have at most 4096 bytes/],
      ["e7 03 00 00 | 01 00 00 00 | ff ff ff ff", /^message 999: payload must have at most 4096 bytes/],
    ] as const
  ) {
    const [ours, theirs] = connection(t);
    say(theirs, hex(wire));
    assert.throws(() => ours.receive(), { name: "ProtocolError", message: text });
  }
});

test(
  "descriptors that the kernel had to drop are an error, and the others do not leak",
  { timeout: 5000 },
  (t) => {
    const [ours, theirs] = connection(t);
    const fd = memoryFile("dropped", 4096);
    onEnd(t, () => close(fd));
    // A first part with 32, and a raw message with one more than that.
    const control = new Native(16 + 4 * 33 + 4);
    control.set64(0, BigInt(16 + 4 * 33));
    control.set32(8, 1);
    control.set32(12, 1);
    for (let i = 0; i < 33; i++) control.set32(16 + 4 * i, fd);
    out.bytes.set(getFeatures);
    const piece = new Native(16);
    piece.set64(0, out.address);
    piece.set64(8, 12n);
    const raw = new Native(56);
    raw.set64(16, piece.address);
    raw.set64(24, 1n);
    raw.set64(32, control.address);
    raw.set64(40, BigInt(16 + 4 * 33));
    assert.equal(libc.sendmsg(theirs, raw.address, 0), 12);

    assert.throws(() => ours.receive(), { name: "ProtocolError", message: /descriptors were lost/ });
    ours.close();
    assert.equal(countMemoryFiles("dropped"), 1);
  },
);

test("what is sent has the version, and passes the tap", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  const peer = new Connection(theirs, frontendMessages);
  const seen: string[] = [];
  ours.tap = (direction, { name }) => seen.push(`${direction} ${name}`);
  ours.send(8, 8, setNum.subarray(12), new DescriptorBag());
  const { header, payload } = message(peer.receive());
  assert.deepEqual(header, { request: 8, flags: 9, size: 8 });
  assert.deepEqual(payload, setNum.slice(12));
  say(theirs, getFeatures);
  message(ours.receive());
  assert.deepEqual(seen, ["out SET_VRING_NUM", "in GET_FEATURES"]);
});

test("a payload that no peer would accept is not sent", { timeout: 5000 }, (t) => {
  const [ours] = connection(t);
  assert.throws(() => ours.send(1, 0, new Uint8Array(4097), new DescriptorBag()), {
    name: "RangeError",
    message: "GET_FEATURES: payload of 4097 bytes, at most 4096",
  });
});

test("a peer that does not read its answers is left", { timeout: 5000 }, (t) => {
  const [ours] = connection(t);
  assert.throws(() => {
    for (let i = 0; i < 10_000; i++) ours.send(44, 4, new Uint8Array(2056), new DescriptorBag());
  }, {
    name: "ProtocolError",
    message: "GET_SHMEM_CONFIG: the peer does not read its messages: buffer full",
  });
});

test("closing closes the socket once, and what nobody took", { timeout: 5000 }, (t) => {
  const [ours, theirs] = connection(t);
  const fd = memoryFile("untaken", 4096);
  onEnd(t, () => close(fd));
  say(theirs, setNum.subarray(0, 5), [fd]);
  assert.equal(ours.receive(), null);
  assert.equal(countMemoryFiles("untaken"), 2);
  ours.close();
  assert.equal(countMemoryFiles("untaken"), 1);

  const reused = eventfd();
  onEnd(t, () => close(reused));
  ours.close();
  assert.ok(isOpen(reused));
  assert.equal(ours.closed, true);
});

test("a closed connection says nothing to whom its descriptor belongs now", { timeout: 5000 }, (t) => {
  const [ours] = connection(t);
  const number = ours.fd;
  ours.close();
  const [a, b] = socketPair();
  onEnd(t, () => [a, b].forEach(close));
  assert.ok([a, b].includes(number), "the number was given out again");
  assert.throws(() => ours.send(1, 0, new Uint8Array(0), new DescriptorBag()), {
    name: "ProtocolError",
    message: "GET_FEATURES: the connection is closed",
  });
});
