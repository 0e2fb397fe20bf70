import assert from "node:assert/strict";
import test from "node:test";
import { addressOf, bufferAt } from "../../ffi/deno.ts";
import { littleEndian, Native } from "../../ffi/native.ts";

test("native memory is zeroed, and at its address", { timeout: 5000 }, () => {
  const native = new Native(16);
  assert.deepEqual(native.bytes, new Uint8Array(16));
  assert.equal(native.address, addressOf(native.buffer));
  native.bytes[3] = 9;
  assert.equal(new Uint8Array(bufferAt(native.address, 16))[3], 9);
});

test("numbers are stored in the machine's order", { timeout: 5000 }, () => {
  const native = new Native(16);
  native.set32(0, 0x0102_0304);
  native.set64(8, 0x0102_0304_0506_0708n);
  assert.equal(new Uint32Array(native.buffer)[0], 0x0102_0304);
  assert.equal(new BigUint64Array(native.buffer)[1], 0x0102_0304_0506_0708n);
  assert.equal(native.bytes[0] === 4, littleEndian);
});

test("32 bits are read signed, 64 unsigned, whichever were stored", { timeout: 5000 }, () => {
  const native = new Native(16);
  native.set32(0, -1);
  native.set32(4, 0xffff_fffe);
  native.set64(8, -1n);
  assert.equal(native.get32(0), -1);
  assert.equal(native.get32(4), -2);
  assert.equal(native.get64(8), 0xffff_ffff_ffff_ffffn);
});

test("a string ends with a zero byte and has none in it", { timeout: 5000 }, () => {
  assert.deepEqual(Native.string("aü").bytes, new Uint8Array([0x61, 0xc3, 0xbc, 0]));
  assert.deepEqual(Native.string("").bytes, new Uint8Array([0]));
  assert.throws(() => Native.string("a\0b"), {
    name: "TypeError",
    message: 'string with a zero byte: "a\\u0000b"',
  });
});
