import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { deflateRawSync } from "node:zlib";
import { bytesOf } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";
import { OurBackend, startCommand, startExample } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

realTest("the entropy device of the examples feeds a guest", ["qemu", "guest"], {}, async (t) => {
  const socket = join(tempDir(t), "rng.sock");
  const child = startExample(t, "rng", socket);
  await child.waitSocket(socket);
  const guest = await restoreGuest(t);
  // Deno sets up its own handling of signals half a second after the start, with a pair of sockets.
  await sleep(500);
  const backend = new OurBackend(t, child, socket);
  await guest.plug("vhost-user-rng-pci", socket);
  await guest.waitFor("grep -q virtio_rng /sys/class/misc/hw_random/rng_available");
  const current = await guest.run(
    "cd /sys/class/misc/hw_random; cat rng_available; grep -o 'virtio_rng.[0-9]*' rng_available >rng_current; cat rng_current",
  );
  assert.match(current, /virtio_rng\.\d+$/);
  const read = async (): Promise<Uint8Array> => {
    const text = await guest.run(
      "dd if=/dev/hwrng bs=1k count=64 iflag=fullblock 2>/dev/null | xxd -p -c 64",
    );
    return Buffer.from(text.replaceAll("\n", ""), "hex");
  };
  const samples = [await read(), await read()];
  for (const sample of samples) {
    assert.equal(sample.length, 65536);
    assert.ok(deflateRawSync(sample).length >= 65536, "it compresses");
    // Each byte value is expected 256 times, with a standard deviation of 16.
    const counts = new Array(256).fill(0);
    for (const byte of sample) counts[byte]++;
    assert.ok(counts.every((n) => n > 128 && n < 400), `counts of byte values: ${counts}`);
  }
  // No block of one appears in the other, nor twice in the same.
  const blocks = samples.flatMap((sample) =>
    Array.from({ length: 4096 }, (_, i) => Buffer.from(sample.subarray(i * 16, i * 16 + 16)).toString("hex"))
  );
  assert.equal(new Set(blocks).size, blocks.length);
  await guest.unplug();
  await guest.stop();
  await backend.checkUnharmed();
});

realTest(
  "the command line's entropy device gives a guest the bytes of a file, no faster than it may",
  [
    "qemu",
    "guest",
  ],
  {},
  async (t) => {
    const folder = tempDir(t);
    const [socket, file] = [join(folder, "rng.sock"), join(folder, "bytes")];
    const bytes = bytesOf(4, 1 << 16);
    writeFileSync(file, bytes);
    const child = startCommand(t, [
      "rng",
      `--socket-path=${socket}`,
      `--rng-source=${file}`,
      "--rate-limit=2K:500",
    ]);
    await child.waitLine(/^vhost-user rng: .* on /);
    await sleep(500);
    const backend = new OurBackend(t, child, socket);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-rng-pci", socket);
    await guest.waitFor("grep -q virtio_rng /sys/class/misc/hw_random/rng_available");
    await guest.run(
      "cd /sys/class/misc/hw_random; grep -o 'virtio_rng.[0-9]*' rng_available >rng_current",
    );
    const start = performance.now();
    const text = await guest.run("dd if=/dev/hwrng bs=1k count=8 iflag=fullblock 2>/dev/null | xxd -p -c 64");
    const took = performance.now() - start;
    const got = Buffer.from(text.replaceAll("\n", ""), "hex");
    assert.equal(got.length, 8192);
    // The kernel takes some for itself, before and in between; what we see is in the file, in its order.
    const whole = Buffer.from(bytes);
    let at = 0;
    for (let i = 0; i < got.length; i += 16) {
      const found = whole.indexOf(got.subarray(i, i + 16), at);
      assert.ok(
        found >= at,
        `bytes ${i} to ${i + 16} of those that the guest has read come next in the file`,
      );
      at = found + 16;
    }
    assert.ok(took > 1400, `8 KiB at 4 KiB a second, 2 KiB of them at once: ${took} ms`);
    await guest.unplug();
    await guest.stop();
    await backend.checkUnharmed();
  },
);
