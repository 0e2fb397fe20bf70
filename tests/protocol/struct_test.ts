import assert from "node:assert/strict";
import test from "node:test";
import {
  bytes,
  i64,
  nativeEndianness,
  Struct,
  u16,
  u32,
  u64,
  u64Array,
  u8,
} from "../../src/protocol/struct.ts";
import { hex } from "./hex.ts";

const mixed = {
  kind: u8,
  length: u32,
  flag: u8,
  address: u64,
  port: u16,
  tag: bytes(3),
};
type Mixed = { kind: number; length: number; flag: number; address: bigint; port: number; tag: Uint8Array };

const value: Mixed = {
  kind: 0x11,
  length: 0x2233_4455,
  flag: 0x66,
  address: 0x7788_99aa_bbcc_ddeen,
  port: 0xf00d,
  tag: new Uint8Array([1, 2, 3]),
};

test("fields lie where a C compiler puts them", { timeout: 5000 }, () => {
  const struct = new Struct<Mixed>(mixed);
  assert.deepEqual(struct.offsets, { kind: 0, length: 4, flag: 8, address: 16, port: 24, tag: 26 });
  assert.equal(struct.size, 32);
  assert.deepEqual(struct.names, ["kind", "length", "flag", "address", "port", "tag"]);
});

test("little-endian unless said otherwise, whatever the machine", { timeout: 5000 }, () => {
  assert.deepEqual(
    new Struct<Mixed>(mixed).encode(value),
    hex("11 00*3  55 44 33 22  66 00*7  ee dd cc bb aa 99 88 77  0d f0  01 02 03 00*3"),
  );
  assert.deepEqual(
    new Struct<Mixed>(mixed, "big").encode(value),
    hex("11 00*3  22 33 44 55  66 00*7  77 88 99 aa bb cc dd ee  f0 0d  01 02 03 00*3"),
  );
  assert.equal(nativeEndianness, new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? "little" : "big");
});

test("reading gives back what was written, in both orders", { timeout: 5000 }, () => {
  for (const endianness of ["little", "big"] as const) {
    const struct = new Struct<Mixed>(mixed, endianness);
    const target = new Uint8Array(40).fill(0xff);
    struct.write(new DataView(target.buffer), 8, value);
    assert.deepEqual(struct.read(new DataView(target.buffer), 8), value);
    assert.deepEqual(target.subarray(0, 8), new Uint8Array(8).fill(0xff));
    assert.equal(target[9], 0xff, "padding is left as it is");
  }
});

test("short bytes are filled up with zeros, also over what was there", { timeout: 5000 }, () => {
  const struct = new Struct<{ name: Uint8Array }>({ name: bytes(4) });
  const target = new Uint8Array(4).fill(0xff);
  struct.write(new DataView(target.buffer), 0, { name: new Uint8Array([7]) });
  assert.deepEqual(target, new Uint8Array([7, 0, 0, 0]));
});

test("bytes that were read are a copy", { timeout: 5000 }, () => {
  const source = new Uint8Array([1, 2, 3, 4]);
  const { name } = new Struct<{ name: Uint8Array }>({ name: bytes(4) }).decode(source);
  source.fill(0);
  assert.deepEqual(name, new Uint8Array([1, 2, 3, 4]));
});

test("signed numbers keep their sign", { timeout: 5000 }, () => {
  const struct = new Struct<{ result: bigint }>({ result: i64 });
  assert.deepEqual(struct.encode({ result: -1n }), new Uint8Array(8).fill(0xff));
  assert.equal(struct.decode(new Uint8Array(8).fill(0xff)).result, -1n);
});

test("a value that does not fit is refused with the field's name", { timeout: 5000 }, () => {
  const struct = new Struct<Mixed & { list: readonly bigint[]; result: bigint }>({
    ...mixed,
    list: u64Array(2),
    result: i64,
  });
  const good = { ...value, list: [1n, 2n], result: 0n };
  struct.encode(good);
  const bad: [Partial<typeof good>, RegExp][] = [
    [{ kind: 256 }, /^kind must be an unsigned 8-bit integer, got 256$/],
    [{ kind: -1 }, /^kind must be an unsigned 8-bit integer, got -1$/],
    [{ port: 65536 }, /^port must be an unsigned 16-bit integer, got 65536$/],
    [{ port: NaN }, /^port must be an unsigned 16-bit integer, got NaN$/],
    [{ length: 2 ** 32 }, /^length must be an unsigned 32-bit integer, got 4294967296$/],
    [{ length: 1.5 }, /^length must be an unsigned 32-bit integer, got 1.5$/],
    [{ address: 2n ** 64n }, /^address must be an unsigned 64-bit integer, got 0x10000000000000000$/],
    [{ tag: new Uint8Array(4) }, /^tag must be at most 3 bytes, got 4 bytes$/],
    [{ list: [1n] }, /^list must be 2 numbers, got 1$/],
    [{ result: 2n ** 63n }, /^result must be a signed 64-bit integer, got 0x8000000000000000$/],
  ];
  for (const [part, message] of bad) {
    assert.throws(() => struct.encode({ ...good, ...part }), { name: "FieldError", message });
  }
});

test("too few bytes are refused, surplus ones ignored", { timeout: 5000 }, () => {
  const struct = new Struct<{ port: number; length: number }>({ port: u16, length: u32 });
  assert.throws(() => struct.decode(new Uint8Array(7)), {
    name: "FieldError",
    message: "structure must be at least 8 bytes, got 7 bytes",
  });
  assert.deepEqual(struct.decode(hex("01 00 ff ff 02 00 00 00 aa bb")), { port: 1, length: 2 });
});
