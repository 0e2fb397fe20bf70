import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Modules } from "../run/modules.ts";
import { MIB, newImage, sha256 } from "../support/image.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

/** A disk whose serial number, which the guest asks for each time, says which version of the module it is. */
const DISK = `
import { BlkDevice, FileStorage } from "${root}src/devices/blk/mod.ts";
import { id } from "./id.ts";
export default ({ file }) => new BlkDevice({ storage: new FileStorage(file), id });
`;

realTest("a disk's module is changed under a guest that writes", ["qemu", "guest"], {}, async (t) => {
  const image = newImage(t, 32 * MIB);
  const modules = new Modules(t);
  modules.write("id.ts", 'export const id = "first";');
  const module = modules.write("disk.ts", DISK);
  const socket = modules.path("socket");
  const child = startDeno(t, [
    ...["--allow-read", "--allow-run", "--allow-env", join(root, "src/cli/mod.ts"), "run", module],
    ...[`--socket-path=${socket}`, `--option=file=${image}`, "--watch"],
  ]);
  await child.waitLine(/^vhost-user run: .* on /, 30_000);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-blk-pci", socket, { reconnectMs: 50 });
  await guest.waitFor("[ -b /dev/vda ]");
  assert.equal((await guest.run("cat /sys/block/vda/serial")).trim(), "first");
  const sum = await guest.run(
    "dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null; sha256sum </tmp/data | cut -c1-64",
  );
  await guest.run(
    "(while [ ! -e /tmp/stop ]; do dd if=/tmp/data of=/dev/vda bs=64k oflag=direct conv=notrunc 2>/dev/null " +
      "|| echo failed >>/tmp/failed; echo >>/tmp/rounds; done; touch /tmp/ended) >/dev/null 2>&1 &",
  );
  await guest.waitFor("[ -s /tmp/rounds ]");
  for (const id of ["second", "third"]) {
    modules.replace("id.ts", `export const id = "${id}";`);
    await guest.waitFor(`[ "$(cat /sys/block/vda/serial)" = ${id} ]`);
    await guest.run("rm /tmp/rounds");
    await guest.waitFor("[ -s /tmp/rounds ]");
  }
  modules.write("id.ts", "export const id = ;");
  await child.waitLine(/the version before goes on serving/, 30_000);
  assert.equal((await guest.run("cat /sys/block/vda/serial")).trim(), "third");
  await guest.run("touch /tmp/stop");
  await guest.waitFor("[ -e /tmp/ended ]");
  assert.equal(await guest.run("cat /tmp/failed 2>/dev/null || true"), "", "no write has failed");
  assert.equal(await guest.run("dmesg | grep -c 'I/O error' || true").then((text) => text.trim()), "0");
  const read = await guest.run(
    "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=8 2>/dev/null | sha256sum | cut -c1-64",
  );
  assert.equal(read.trim(), sum.trim());
  assert.equal(sha256(readFileSync(image).subarray(0, 8 * MIB)), sum.trim());
  await guest.stop();
  process.kill(child.pid, "SIGTERM");
  assert.equal(await child.waitEnd(), 0, child.output);
});
