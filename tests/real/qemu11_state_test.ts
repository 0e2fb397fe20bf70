import assert from "node:assert/strict";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import { CountingFs } from "../support/counting_fs.ts";
import { Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { migrate } from "../support/migration.ts";
import { realTest } from "../support/peers.ts";

function machine(socket: string, incoming = false): Parameters<typeof Guest.start>[1] {
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
