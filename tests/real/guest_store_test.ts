import assert from "node:assert/strict";
import { join } from "node:path";
import { Store } from "../../examples/writing/store.ts";
import { tempDir } from "../support/cleanup.ts";
import { Guest, type GuestOptions } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";

/** A machine with a store, and the module of its driver. */
function machine(socket: string): GuestOptions {
  return {
    emulator: "qemu11",
    modules: ["virtio_store"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${socket}`],
      ...["-device", "vhost-user-test-device-pci,chardev=c0,virtio-id=22,num_vqs=2,config_size=8"],
    ],
  };
}

/** Shell: to the device's folder. */
const THERE = "cd /sys/bus/virtio/devices/virtio0";

realTest("a guest has a store", ["qemu11", "guest"], {}, async (t) => {
  const folder = tempDir(t);
  const [socket, file] = [join(folder, "store.sock"), join(folder, "store.jsonl")];
  const program = join(root, "examples/writing/serve_store.ts");
  const child = startDeno(t, [`--allow-read=${file}`, `--allow-write=${file}`, program, socket, file]);
  await child.waitLine(/^a store on /);
  const guest = await Guest.start(t, machine(socket));
  assert.equal(await guest.run(`${THERE}; cat entries`), "0");
  assert.equal(await guest.run(`${THERE}; echo name=Ada >set; echo name >get; cat get`), "Ada");
  assert.match(await guest.run(`${THERE}; echo nobody 2>&1 >get || true`), /No such file or directory/);
  assert.match(await guest.run(`${THERE}; echo =value 2>&1 >set || true`), /Invalid argument/);
  assert.equal(await guest.run(`${THERE}; cat entries`), "1");
  await guest.stop();
  assert.equal(child.code, undefined, child.output);
});

realTest("a guest hears of changes that the host makes", ["qemu11", "guest"], {}, async (t) => {
  const store = new Store();
  const device = await InProcess.serve(t, store.device);
  const guest = await Guest.start(t, machine(device.socket));
  await guest.run(`${THERE}; echo 1 >watch`);
  store.set("name", "Ada");
  await guest.waitFor("dmesg | grep -q 'name has changed'");
  await guest.waitFor("dmesg | grep -q '1 entries'");
  await guest.run(`${THERE}; echo year=1815 >set`);
  assert.equal(store.get("year"), "1815");
  await guest.waitFor("dmesg | grep -q 'year has changed'");
  // Were it not for QEMU's generic device, the guest could take the state along.
  await assert.rejects(guest.qmp("migrate", { uri: "file:/dev/null" }), /non-migratable device/);
  // Another driver starts from the beginning: it does not watch.
  const driver = "/sys/bus/virtio/drivers/virtio_store";
  await guest.run(`echo virtio0 >${driver}/unbind; echo virtio0 >${driver}/bind`);
  store.set("nobody", "hears");
  assert.equal(await guest.run(`${THERE}; echo nobody >get; cat get`), "hears");
  await guest.run("! dmesg | grep 'nobody has changed'");
  await guest.stop();
  await device.checkUnharmed();
});
