import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { main } from "../../src/cli/mod.ts";
import { tempDir } from "../support/cleanup.ts";

/** Runs a command that ends by itself. */
async function run(...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const [out, error]: [string[], string[]] = [[], []];
  const code = await main(args, { out: (line) => out.push(line), error: (line) => error.push(line) });
  return { code, out: out.join("\n"), error: error.join("\n") };
}

test("command lines that cannot be are explained", { timeout: 20_000 }, async (t) => {
  const dir = tempDir(t);
  const odd = join(dir, "odd.bin");
  writeFileSync(odd, new Uint8Array(100));
  const socket = `--socket-path=${join(dir, "socket")}`;
  for (
    const [args, code, message] of [
      [["gpio", "--device-list=s0"], 2, /1 to 1024, got '0'/],
      [["gpio", "--device-list=x"], 2, /--device-list must be a whole number/],
      [["gpio", "--device-list=s2", "--names=a,b,c"], 2, /3 names for 2 lines/],
      [["gpio", "--names=a,a"], 1, /two lines are called "a"/],
      [["gpio", "--wire=1"], 2, /--wire is FROM:TO, got '1'/],
      [["gpio", "--wire=1:1"], 1, /cannot be wired to itself/],
      [["gpio", "--device-list=0", "--wire=0:1"], 2, /for simulated lines/],
      [["gpio", "--device-list=9999"], 1, /ENOENT.*gpiochip9999/],
      [["i2c", "--device-list=clock@0x20"], 2, /eeprom@ADDRESS.*got 'clock@0x20'/],
      [["i2c", "--device-list=eeprom@0x03"], 2, /0x08 to 0x77.*got '0x03'/],
      [["i2c", "--device-list=lm75@0x48,eeprom@72"], 1, /there is a part at 0x48 already/],
      [["i2c", "--device-list=lm75@0x48=warm"], 2, /got 'warm'/],
      [["i2c", `--device-list=eeprom@0x50=${odd}`], 1, /power of two of bytes.*got 100/],
      [["i2c", `--device-list=eeprom@0x50=${dir}/none`], 1, /ENOENT/],
      [["i2c", "--device-list=9999:0x20"], 1, /ENOENT.*i2c-9999/],
      [["spi", "--device=flash,disk"], 2, /got 'disk'/],
      [["spi", "--device=flash=1000"], 1, /power of two/],
      [["spi", "--device=/dev/spidev99.9"], 1, /ENOENT.*spidev99.9/],
      [["rtc", "--time=noon"], 2, /got 'noon'/],
      [["scmi", "--device=sensor:x"], 2, /got 'sensor:x'/],
      [["scmi", "--device=clock:x=5-4"], 1, /min <= rate/],
    ] as const
  ) {
    const { code: actual, error } = await run(...args, socket);
    assert.match(error, message, args.join(" "));
    assert.equal(actual, code, args.join(" "));
  }
});

test("each has help and says what it is", { timeout: 20_000 }, async () => {
  for (const name of ["gpio", "i2c", "spi", "rtc", "scmi"]) {
    const { code, out } = await run(name, "--help");
    assert.equal(code, 0);
    assert.match(out, new RegExp(`^Usage: vhost-user ${name} `));
    assert.match(out, /--socket-path=PATH/);
    assert.equal(JSON.parse((await run(name, "--print-capabilities")).out).type, name);
  }
});
