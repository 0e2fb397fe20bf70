import assert from "node:assert/strict";
import { ScmiDevice, sensorProtocol, SimulatedSensor } from "../../src/devices/scmi/mod.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux has no driver for it on this processor: QEMU alone is tried.

realTest("QEMU's generic device takes the platform", ["qemu11", "guest"], {}, async (t) => {
  const device = await InProcess.serve(
    t,
    new ScmiDevice({ protocols: [sensorProtocol([new SimulatedSensor("soc", 40)])] }),
  );
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-test-device-pci", device.socket, {
    props: { "virtio-id": 32, num_vqs: 2, vq_size: 64, config_size: 0 },
  });
  await guest.waitFor("grep -q 0x0020 /sys/bus/virtio/devices/virtio*/device");
  assert.equal(device.all("GET_FEATURES").length > 0, true);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});
