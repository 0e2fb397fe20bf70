import assert from "node:assert/strict";
import { Ciphers } from "../support/ciphers.ts";
import type { Emulator, Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux tries a cipher with published keys and texts before it lets anybody use it.

/** Plugs the device in and returns what the kernel thinks of its cipher. */
async function tried(guest: Guest, device: InProcess): Promise<string> {
  await guest.run("echo N >/sys/module/cryptomgr/parameters/notests");
  // QEMU offers the driver more than it tells the back-end of.
  await guest.plug("virtio-crypto-pci", device.socket, { props: { event_idx: false, indirect_desc: false } });
  // While it is tried it has a second entry, a larva.
  const entry = "grep -A 6 'driver *: virtio_crypto_aes_cbc' /proc/crypto";
  const failed = "dmesg | grep 'alg: .*virtio_crypto_aes_cbc'";
  await guest.waitFor(`{ ${entry} >/tmp/entry && ! grep -q larval /tmp/entry; } || ${failed} >/dev/null`);
  return await guest.run(`${failed} || cat /tmp/entry`);
}

for (const emulator of ["qemu", "qemu11"] as const satisfies readonly Emulator[]) {
  realTest(
    `the guest's kernel finds that AES-CBC is right: ${emulator}`,
    [emulator, "guest"],
    {},
    async (t) => {
      const ciphers = new Ciphers();
      const device = await InProcess.serve(t, ciphers.device);
      const guest = await restoreGuest(t, { emulator });
      assert.match(await tried(guest, device), /selftest *: passed\n.*\n.*skcipher/);
      assert.deepEqual([...new Set(ciphers.keyLengths)].sort(), [16, 24, 32]);
      assert.ok(ciphers.done.every((count) => count > 3), `${ciphers.done} were encrypted, decrypted`);
      await guest.unplug();
      await guest.stop();
      assert.equal(ciphers.open, 0, "all sessions are closed");
      // QEMU 8.0 has changed the message.
      assert.ok(device.all("CREATE_CRYPTO_SESSION").every(({ length }) => length === 1072));
      await device.checkUnharmed();
    },
  );
}

realTest("the guest's kernel finds that AES-CBC is wrong", ["qemu", "guest"], {}, async (t) => {
  const ciphers = new Ciphers(true);
  const device = await InProcess.serve(t, ciphers.device);
  const guest = await restoreGuest(t);
  assert.match(await tried(guest, device), /virtio_crypto_aes_cbc encryption test failed \(wrong result\)/);
  await guest.stop();
  await device.checkUnharmed();
});
