import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { close, isNonblocking } from "../../ffi/fd.ts";
import { Iovec } from "../../ffi/iovec.ts";
import { Native } from "../../ffi/native.ts";
import { socketPair } from "../../ffi/socket.ts";
import { openTap, setTapHeaderSize, setTapOffloads, TapOffload, useTapQueue } from "../../ffi/tap.ts";
import { readPieces, writePieces } from "../../ffi/vector_io.ts";
import { realTest } from "../support/peers.ts";
import { onEnd } from "../support/cleanup.ts";

const LIMIT = { timeout: 5000 };

function pieces(...lengths: readonly number[]): { iovec: Iovec; natives: Native[] } {
  const iovec = new Iovec(8);
  const natives = lengths.map((length) => new Native(length));
  for (const native of natives) iovec.push(Number(native.address), native.bytes.length);
  return { iovec, natives };
}

test("pieces go out as one and come in as others", LIMIT, () => {
  const [a, b] = socketPair();
  const { iovec: input, natives } = pieces(3, 5);
  assert.equal(readPieces(b, input), -1, "nothing yet");
  const { iovec: output, natives: sources } = pieces(2, 4);
  sources[0].bytes.set([1, 2]);
  sources[1].bytes.set([3, 4, 5, 6]);
  assert.equal(writePieces(a, output), 6);
  assert.equal(readPieces(b, input), 6);
  assert.deepEqual([...natives[0].bytes, ...natives[1].bytes], [1, 2, 3, 4, 5, 6, 0, 0]);
  const { iovec: much } = pieces(1 << 20);
  const sent = writePieces(a, much);
  assert.ok(sent > 0 && sent < 1 << 20);
  assert.equal(writePieces(a, much), -1, "no more room");
  close(a);
  const { iovec: rest } = pieces(1 << 20);
  let left = sent;
  for (let n = readPieces(b, rest); n > 0; n = readPieces(b, rest)) left -= n;
  assert.equal(left, 0);
  assert.throws(() => writePieces(b, output), /EPIPE/);
  close(b);
  assert.throws(() => readPieces(b, input), /EBADF/);
});

test("what no interface can be called is refused", LIMIT, () => {
  for (const name of ["", "sixteen-letters-", "a b", "a/b", "ä"]) {
    assert.throws(() => openTap(name), RangeError, name);
  }
});

realTest("a TAP device, its header, its queues", ["tun"], LIMIT, (t) => {
  const one = openTap(`vt${process.pid}.%d`, true);
  onEnd(t, () => close(one.fd));
  assert.equal(one.name, `vt${process.pid}.0`);
  assert.ok(isNonblocking(one.fd));
  const two = openTap(one.name, true);
  onEnd(t, () => close(two.fd));
  assert.equal(two.name, one.name);
  for (const { fd } of [one, two]) setTapHeaderSize(fd, 12);
  assert.throws(() => setTapHeaderSize(one.fd, 9), /EINVAL/);
  setTapOffloads(one.fd, TapOffload.CSUM | TapOffload.TSO4 | TapOffload.TSO6 | TapOffload.TSO_ECN);
  setTapOffloads(one.fd, 0);
  useTapQueue(two.fd, false);
  useTapQueue(two.fd, true);
  assert.throws(() => openTap(one.name), /EINVAL|EBUSY/, "it has several queues");
  const { iovec } = pieces(12, 60);
  assert.throws(() => writePieces(one.fd, iovec), /EIO/, "the interface is down");
  return Promise.resolve();
});
