import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Key, Keyboard } from "../../src/devices/input/mod.ts";
import { Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { root } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { startWords } from "../support/runtime.ts";

/** How long the runtime may take in an emulated machine, ms: Deno takes 20 s. */
const PATIENCE = 150_000;

// This machine may have no input devices, and no way to make one. A guest has one: ours. So the toolkit runs there.
realTest("a device of a machine is passed through", ["qemu", "guest"], { timeout: 200_000 }, async (t) => {
  const lights: string[] = [];
  const keyboard = new Keyboard({ onStatus: (...event) => lights.push(event.join(" ")) });
  const guest = await Guest.start(t, {
    memory: 1536,
    smp: 2,
    slots: 1,
    modules: ["virtio_input", "evdev", "9p", "9pnet_virtio"],
    devices: [
      ...["-fsdev", "local,id=fs0,path=/,security_model=none,readonly=on,multidevs=remap"],
      ...["-device", "virtio-9p-pci,fsdev=fs0,mount_tag=host"],
    ],
  });
  const served = await InProcess.serve(t, keyboard);
  await guest.plug("vhost-user-input-pci", served.socket);
  const { name } = keyboard.profile;
  await guest.waitFor(`grep -q '${name}' /proc/bus/input/devices`);
  // A folder of this machine that the toolkit is not in, to be written to.
  const scratch = ["/mnt", "/media", "/tmp"].find((each) => existsSync(each) && !root.startsWith(`${each}/`));
  const event = await guest.run(
    `mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
    for x in dev proc sys; do mount --bind /$x /host/$x; done
    mount --bind /tmp /host${scratch}
    grep -A 5 '${name}' /proc/bus/input/devices | sed -n 's/.*Handlers=.*\\(event[0-9]*\\).*/\\1/p'`,
  );
  const probe = join(root, "tests/real/evdev_probe.ts");
  const words = startWords(
    ["--no-lock", "--no-config", "--no-check", "--allow-all"],
    [probe, `/dev/input/${event}`, "4"],
  );
  const done = guest.run(
    `chroot /host /usr/bin/env TMPDIR=${scratch} DENO_DIR=${scratch}/deno HOME=${homedir()} NO_COLOR=1 ${process.execPath} \\
      ${words.join(" ")} >/dev/ttyS0 2>&1`,
    PATIENCE,
  );
  done.catch(() => {});
  for (const deadline = Date.now() + PATIENCE; !/open|rror/.test(guest.console); await sleep(50)) {
    assert.ok(Date.now() < deadline, guest.console);
  }
  keyboard.tap("Q");
  await done;
  const lines = guest.console.split(/\r?\n/).filter((line) => /^(profile|second|open|event) ?/.test(line));
  assert.deepEqual(lines, [
    `profile ["${name}",{"bus":6,"vendor":0,"product":0,"version":0},[[1,248],[17,3],[20,0]]]`,
    "second OsError: ioctl: EBUSY (16) while grabbing an input device",
    "open",
    `event 1 ${Key.Q} 1 0`,
    "event 0 0 0 0",
    `event 1 ${Key.Q} 0 0`,
    "event 0 0 0 0",
  ]);
  // The light went from the driver there by the device there to the one here; the guest's own console takes it back.
  assert.ok(lights.includes("17 1 1"), `caps lock is lit: ${lights}`);
  await guest.stop();
  await served.checkUnharmed();
});
