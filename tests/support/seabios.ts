import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { tempDir } from "./cleanup.ts";
import { imageOf, MIB, sha256 } from "./image.ts";
import type { OurBackend } from "./our_backend.ts";
import { peerPath } from "./peers.ts";
import { Child } from "./process.ts";
import { Random } from "./random.ts";

/**
 * A boot sector: loads 40 sectors from sector 1 to 0x8000 (INT 13h, function 42h), writes the text there to the serial
 * port up to its zero, writes the sectors to sector 64 (function 43h), and says "!".
 */
const bootCode = Buffer.from(
  "31c08ed88ec089d5be477cb442cd137223be0080ac84c07405e81b00ebf6be477cc744084000b8004389eacd137205b021e80300f4ebfd88" +
    "c4bafd03eca82074fb88e0b2f8eec310002800008000000100000000000000",
  "hex",
);

/**
 * Has SeaBIOS start a program from a disk that reads and writes it by the firmware's own driver.
 *
 * @param device the front-end in QEMU
 * @param start serves an image
 */
export async function seaBiosStarts(
  t: TestContext,
  device: string,
  start: (image: string) => Promise<OurBackend>,
): Promise<void> {
  const random = Random.of(t);
  const text = Array.from({ length: 20_000 }, () => String.fromCharCode(random.int(0x61, 0x7a))).join("");
  const contents = Buffer.alloc(MIB);
  bootCode.copy(contents);
  contents.writeUInt16LE(0xaa55, 510);
  contents.write(text, 512);
  const image = imageOf(t, contents);
  const disk = await start(image);
  const said = join(tempDir(t), "serial");
  const qemu = Child.start(t, peerPath("qemu"), [
    ...["-no-user-config", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64M"],
    ...["-M", "q35,memory-backend=m0", "-object", "memory-backend-memfd,id=m0,size=64M,share=on"],
    ...["-bios", "bios-256k.bin", "-serial", `file:${said}`, "-chardev", `socket,id=c0,path=${disk.socket}`],
    ...["-device", `${device},chardev=c0,bootindex=1`],
  ]);
  const output = () => existsSync(said) ? readFileSync(said, "latin1") : "";
  const deadline = Date.now() + 20_000;
  while (!output().endsWith("!") && Date.now() < deadline) {
    assert.equal(qemu.code, undefined, qemu.output);
    await sleep(20);
  }
  assert.equal(
    sha256(Buffer.from(output(), "latin1")),
    sha256(Buffer.from(`${text}!`)),
    output().slice(0, 100),
  );
  await qemu.stop();
  await disk.checkUnharmed();
  contents.copy(contents, 64 * 512, 512, 41 * 512);
  assert.equal(sha256(image), sha256(contents));
}
