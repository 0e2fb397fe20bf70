import assert from "node:assert/strict";
import { join } from "node:path";
import { ArpNet } from "../support/arp_net.ts";
import { tempDir } from "../support/cleanup.ts";
import { CountingFs } from "../support/counting_fs.ts";
import { Guest, type GuestOptions } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { migrate } from "../support/migration.ts";
import { realTest } from "../support/peers.ts";

function machine(socket: string, incoming = false): GuestOptions {
  return {
    emulator: "qemu11",
    devices: [
      ...["-chardev", `socket,id=c0,path=${socket}`],
      ...["-device", "vhost-user-fs-pci,chardev=c0,tag=counting,queue-size=64"],
    ],
    ...incoming ? { incoming: "defer" } : {},
  };
}

for (const postcopy of [false, true]) {
  realTest(
    `a mounted file system moves with its guest, state and all: ${postcopy ? "postcopy" : "precopy"}`,
    ["qemu11", "guest"],
    { timeout: 120_000 },
    async (t) => {
      // Many times what fits into the pipe.
      const [first, second] = [new CountingFs(1_000_000), new CountingFs()];
      const devices = [await InProcess.serve(t, first.device), await InProcess.serve(t, second.device)];
      const source = await Guest.start(t, machine(devices[0].socket));
      await source.run("mkdir /tmp/m && mount -t virtiofs counting /tmp/m");
      const size = async (guest: Guest): Promise<number> => Number(await guest.run("stat -c %s /tmp/m"));
      const looks = await size(source);
      assert.equal(await size(source), looks + 1);
      const target = await Guest.start(t, machine(devices[1].socket, true));
      await migrate(source, target, join(tempDir(t), "migration"), postcopy);
      await source.stop();
      assert.equal(await size(target), looks + 2);
      for (const device of devices) {
        assert.equal(device.all("SET_DEVICE_STATE_FD").length, 1);
        assert.deepEqual(device.all("CHECK_DEVICE_STATE").map(({ answer }) => answer), [0n]);
      }
      assert.equal(first.saved.length, 1);
      assert.deepEqual(second.loaded, first.saved);
      await target.stop();
      for (const device of devices) await device.checkUnharmed();
    },
  );
}

function netMachine(socket: string, incoming = false): GuestOptions {
  return {
    emulator: "qemu11",
    modules: ["virtio_net"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${socket}`, "-netdev", "vhost-user,id=n0,chardev=c0"],
      ...["-device", "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:12:34:56,host_mtu=1400"],
    ],
    ...incoming ? { incoming: "defer" } : {},
  };
}

realTest("a network moves with its guest, state and all, and announces it", ["qemu11", "guest"], {
  timeout: 120_000,
}, async (t) => {
  const [first, second] = [new ArpNet(), new ArpNet()];
  const devices = [await InProcess.serve(t, first.device), await InProcess.serve(t, second.device)];
  const source = await Guest.start(t, netMachine(devices[0].socket));
  const up = "ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up";
  await source.run(up);
  assert.equal(await source.run("cat /sys/class/net/eth0/mtu"), "1400");
  assert.equal(first.mtu, 1400);
  /** The answering machine's address, whose last byte counts. */
  const ask = (guest: Guest): Promise<string> =>
    guest.run("arping -f -c 5 -w 10 -I eth0 10.0.0.2 | grep -o '\\[.*\\]' | head -n 1");
  assert.equal(await ask(source), "[02:00:00:00:00:01]");
  // A pause looks like a reset, but for the positions of the rings: the status goes to 0 and up again.
  const before = devices[0].asked.length;
  await source.qmp("stop");
  await source.qmp("cont");
  await devices[0].until("it goes on", () => devices[0].all("SET_STATUS", before).length >= 3);
  assert.deepEqual(devices[0].all("SET_STATUS", before).map(({ value }) => value), [0n, 8n, 15n]);
  assert.equal(await ask(source), "[02:00:00:00:00:02]");

  const target = await Guest.start(t, netMachine(devices[1].socket, true));
  await migrate(source, target, join(tempDir(t), "migration"));
  await source.stop();
  assert.equal(await ask(target), "[02:00:00:00:00:03]");
  assert.equal(second.loads, 1);
  for (const device of devices) {
    assert.deepEqual(device.all("CHECK_DEVICE_STATE").map(({ answer }) => answer), [0n]);
  }
  await devices[1].until("the guest is announced", () => second.announced.length === 5);
  assert.deepEqual([...new Set(second.announced)], ["52:54:00:12:34:56"]);

  await target.reboot("button");
  assert.ok(devices[1].all("RESET_DEVICE").length > 1, "QEMU says it more than once");
  await target.run(up);
  assert.equal(await ask(target), "[02:00:00:00:00:01]");
  await target.stop();
  for (const device of devices) await device.checkUnharmed();
});

realTest("a state that is refused ends the migration, and the guest goes on where it was", [
  "qemu11",
  "guest",
], {
  timeout: 120_000,
}, async (t) => {
  const [first, second] = [new CountingFs(), new CountingFs(16, true)];
  const devices = [await InProcess.serve(t, first.device), await InProcess.serve(t, second.device)];
  const source = await Guest.start(t, machine(devices[0].socket));
  await source.run("mkdir /tmp/m && mount -t virtiofs counting /tmp/m");
  const looks = Number(await source.run("stat -c %s /tmp/m"));
  const target = await Guest.start(t, machine(devices[1].socket, true));
  // The source learns of it on the way back only.
  const capabilities = [{ capability: "return-path", state: true }];
  for (const guest of [source, target]) await guest.qmp("migrate-set-capabilities", { capabilities });
  await assert.rejects(
    migrate(source, target, join(tempDir(t), "migration")),
    /query-migrate is not "completed": .*failed/,
  );
  assert.match(devices[1].problems.splice(0).join(), /CHECK_DEVICE_STATE: .* was not transferred: not taken/);
  // To save is not to lose.
  await source.waitStatus("running");
  assert.equal(Number(await source.run("stat -c %s /tmp/m")), looks + 1);
  await source.stop();
  await target.stop();
  for (const device of devices) await device.checkUnharmed();
});
