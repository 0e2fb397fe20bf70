import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { deflateRawSync } from "node:zlib";
import { tempDir } from "../support/cleanup.ts";
import { OurBackend, startExample } from "../support/our_backend.ts";
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
