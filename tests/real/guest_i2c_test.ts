import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Eeprom, I2cDevice, Lm75, SimulatedI2cBus } from "../../src/devices/i2c/mod.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { OurBackend, startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux's driver (i2c-virtio), by programs that use the bus and by drivers of parts.

/** Shell: the number of the bus, `$bus`. */
const BUS =
  'for b in /sys/bus/i2c/devices/i2c-*; do grep -q virtio $b/name && bus=${b##*-}; done; [ "$bus" ]';

realTest("a guest finds, reads and writes parts", ["qemu", "guest"], {}, async (t) => {
  const content = bytesOf(34, 256);
  const eeprom = new Eeprom({ data: content.slice() });
  const sensor = new Lm75(0x48, 21.5);
  const device = await InProcess.serve(t, new I2cDevice({ bus: new SimulatedI2cBus([eeprom, sensor]) }));
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-i2c-pci", device.socket);
  await guest.waitFor(`${BUS} && [ -c /dev/i2c-$bus ]`);

  const found = await guest.run(`${BUS}; i2cdetect -y $bus`);
  const there = [...found.matchAll(/ ([0-7][0-9a-f])(?= |$)/gm)].map(([, address]) => address);
  assert.deepEqual(
    there.filter((address) => !/^[0-7]0:?$/.test(address) || address === "50"),
    ["48", "50"],
    found,
  );

  assert.equal(
    Number(await guest.run(`${BUS}; i2cget -y $bus 0x50 0x10 b`)),
    content[0x10],
  );
  await guest.run(`${BUS}; i2cset -y $bus 0x50 0x10 0x5a b; i2cset -y $bus 0x50 0x11 0xa5 b`);
  assert.deepEqual([...eeprom.data.subarray(0x10, 0x12)], [0x5a, 0xa5]);
  await assert.rejects(guest.run(`${BUS}; i2cget -y $bus 0x51 0 b`));

  // The kernel's own driver of such sensors; thousandths of a degree.
  await guest.run(`${BUS}; echo lm75a 0x48 >/sys/bus/i2c/devices/i2c-$bus/new_device`);
  for (const celsius of [21.5, -12.5, 100]) {
    sensor.temperature = celsius;
    // The driver looks at the part twice a second at most.
    await guest.waitFor(`[ "$(cat /sys/class/hwmon/hwmon*/temp1_input)" = ${celsius * 1000} ]`);
  }
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest("the command line serves an EEPROM that is a file", ["qemu", "guest"], {}, async (t) => {
  const file = join(tempDir(t), "eeprom.bin");
  const socket = join(tempDir(t), "i2c.sock");
  const content = bytesOf(35, 256);
  writeFileSync(file, content);
  const child = startCommand(t, [
    "i2c",
    `--socket-path=${socket}`,
    `--device-list=eeprom@0x57=${file},lm75@0x4f=-3.5`,
  ], {});
  await child.waitLine(/^vhost-user i2c: .* on /);
  const guest = await restoreGuest(t);
  const backend = new OurBackend(t, child, socket);
  await guest.plug("vhost-user-i2c-pci", socket);
  await guest.waitFor(`${BUS} && [ -c /dev/i2c-$bus ]`);
  const dump = await guest.run(`${BUS}; i2cdump -y $bus 0x57 b`);
  const bytes = [...dump.matchAll(/^[0-9a-f]0: ((?:[0-9a-f]{2} ){16})/gm)].flatMap(([, row]) =>
    row.trim().split(" ").map((byte) => parseInt(byte, 16))
  );
  sameBytes(Uint8Array.from(bytes), content);
  await guest.run(`${BUS}; i2cset -y $bus 0x57 0xff 0x11 b`);
  assert.equal(readFileSync(file)[0xff], 0x11);
  // The low byte first, as SMBus has words: -3.5 is 0xfc80.
  assert.equal(await guest.run(`${BUS}; i2cget -y $bus 0x4f 0 w`), "0x80fc");
  await guest.unplug();
  await guest.stop();
  await backend.checkUnharmed();
});
