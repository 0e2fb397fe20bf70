import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import test from "node:test";
import { errno, libc } from "../../ffi/deno.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { check, Errno, OsError } from "../../ffi/os_error.ts";

test("an error names the call, the number by name, and what was attempted", { timeout: 5000 }, () => {
  assert.throws(() => openFile("/nowhere/at/all", OpenFlag.READ_ONLY), (error) => {
    assert.ok(error instanceof OsError);
    assert.equal(error.message, "open: ENOENT (2) while opening /nowhere/at/all");
    assert.deepEqual([error.name, error.call, error.code, error.errno], ["OsError", "open", "ENOENT", 2]);
    return true;
  });
});

test("a number without a name is shown as it is", { timeout: 5000 }, () => {
  const error = new OsError("ioctl", 4095, "asking");
  assert.equal(error.code, "E4095");
  assert.equal(error.message, "ioctl: E4095 (4095) while asking");
});

test("names and numbers belong together", { timeout: 5000 }, () => {
  const names = new Map<number, string[]>();
  for (const [name, number] of Object.entries(constants.errno)) {
    names.set(number, [...names.get(number) ?? [], name]);
  }
  let known = 0;
  for (const [number, expected] of names) {
    const { code } = new OsError("x", number, "x");
    if (code === `E${number}`) continue;
    assert.ok(expected.includes(code), `${number} is ${expected.join(" or ")}, not ${code}`);
    known++;
  }
  assert.ok(known >= 40, `only ${known} have a name`);
  for (const [name, number] of Object.entries(Errno)) {
    // The runtime knows those that other systems have as well; the kernel's header has the rest.
    const header = names.has(number) ? "" : readFileSync("/usr/include/asm-generic/errno.h", "utf8");
    const found = names.get(number)?.includes(name) ??
      new RegExp(`#define\\s${name}\\s+${number}\\s`).test(header);
    assert.ok(found, `${name} is not ${number}`);
    assert.equal(new OsError("x", number, "x").code, name);
  }
});

test("the error number is that of the call just made", { timeout: 5000 }, () => {
  assert.equal(libc.close(-1), -1);
  assert.equal(errno(), 9);
  assert.equal(libc.eventfd(0, -1), -1);
  assert.equal(errno(), 22);
});

test("a result that is no failure passes, and nothing is put into words", { timeout: 5000 }, () => {
  const words = (): string => assert.fail("asked for words");
  assert.equal(check(0, "x", words), 0);
  assert.equal(check(17, "x", words), 17);
});

test("a failure is put into words, given or made", { timeout: 5000 }, () => {
  for (const words of ["closing", () => "closing"]) {
    assert.throws(() => check(libc.close(-1), "close", words), {
      name: "OsError",
      message: "close: EBADF (9) while closing",
    });
  }
});
