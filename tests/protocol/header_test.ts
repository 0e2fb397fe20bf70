import assert from "node:assert/strict";
import test from "node:test";
import { checkHeader, header, MAX_PAYLOAD } from "../../src/protocol/header.ts";
import { ProtocolError } from "../../src/protocol/error.ts";
import { hex } from "./hex.ts";

function refused(wire: string, text: RegExp): void {
  assert.throws(() => checkHeader(header.decode(hex(wire)), "GET_FEATURES"), (error) => {
    assert.ok(error instanceof ProtocolError);
    assert.equal(error.name, "ProtocolError");
    assert.equal(error.request, "GET_FEATURES");
    assert.match(error.message, text);
    return true;
  });
}

test("a header is twelve bytes", { timeout: 5000 }, () => {
  assert.equal(header.size, 12);
  assert.deepEqual(header.decode(hex("04 03 02 01 | 09 00 00 00 | 08 10 00 00")), {
    request: 0x0102_0304,
    flags: 9,
    size: 0x1008,
  });
});

test("requests, answers and requests that want one pass", { timeout: 5000 }, () => {
  for (const flags of ["01", "05", "09", "0d"]) {
    checkHeader(header.decode(hex(`01 00 00 00 | ${flags} 00 00 00 | 00 00 00 00`)), "GET_FEATURES");
  }
});

test("any version but 1 is refused", { timeout: 5000 }, () => {
  for (const version of [0, 2, 3]) {
    refused(
      `01 00 00 00 | 0${version} 00 00 00 | 00 00 00 00`,
      new RegExp(`^GET_FEATURES: header version must be 1, got ${version}$`),
    );
  }
});

test("each flag that means nothing yet is refused", { timeout: 5000 }, () => {
  for (let bit = 4; bit < 32; bit++) {
    const flags = (1 << bit | 1) >>> 0;
    const bytes = header.encode({ request: 1, flags, size: 0 });
    assert.throws(
      () => checkHeader(header.decode(bytes), "GET_FEATURES"),
      { name: "ProtocolError", message: /reserved header flags must be 0, got 0x[1248]0*$/ },
      `bit ${bit}`,
    );
  }
  refused("01 00 00 00 | 01 00 00 80 | 00 00 00 00", /reserved header flags must be 0, got 0x80000000$/);
});

test("4096 bytes of payload pass, one more does not", { timeout: 5000 }, () => {
  assert.equal(MAX_PAYLOAD, 4096);
  checkHeader(header.decode(hex("01 00 00 00 | 01 00 00 00 | 00 10 00 00")), "GET_FEATURES");
  refused(
    "01 00 00 00 | 01 00 00 00 | 01 10 00 00",
    /payload must have at most 4096 bytes, header says 4097$/,
  );
  refused("01 00 00 00 | 01 00 00 00 | ff ff ff ff", /header says 4294967295$/);
});

test("an error before the message is known names no message", { timeout: 5000 }, () => {
  const error = new ProtocolError("", "header version must be 1, got 0");
  assert.equal(error.message, "header version must be 1, got 0");
  assert.equal(error.request, "");
});
