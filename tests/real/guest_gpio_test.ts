import assert from "node:assert/strict";
import { GpioDevice, GpioDirection, GpioLines } from "../../src/devices/gpio/mod.ts";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux's driver (gpio-virtio), by its interface for programs.

/** A number that the sysfs interface knows the first line by. */
const BASE = "base=$(cat $(ls -d /sys/class/gpio/gpiochip*)/base)";

/** Shell: to the folder of a line, which has the line's name if there is one. */
const line = (number: number, name: string): string =>
  `${BASE}; cd /sys/class/gpio/${name} 2>/dev/null || { echo $((base + ${number})) >/sys/class/gpio/export; cd /sys/class/gpio/${name}; }`;

realTest("a guest sets lines, reads them and is interrupted", ["qemu", "guest"], {}, async (t) => {
  const lines = new GpioLines(["button", "lamp", "", "door"]);
  const changes: string[] = [];
  lines.onChange = (line, level) => changes.push(`${lines.names[line]}=${level}`);
  const device = await InProcess.serve(t, new GpioDevice({ chip: lines }));
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-gpio-pci", device.socket);
  await guest.waitFor("ls /sys/class/gpio/gpiochip* >/dev/null 2>&1");
  assert.equal(await guest.run(`cat /sys/class/gpio/gpiochip*/ngpio`), "4");

  const [BUTTON, LAMP, DOOR] = [line(0, "button"), line(1, "lamp"), line(3, "door")];
  // A line out, a line in.
  await guest.run(`${LAMP}; echo out >direction; echo 1 >value; echo 0 >value; echo high >direction`);
  assert.deepEqual(changes, ["lamp=1", "lamp=0", "lamp=1"]);
  assert.equal(lines.direction(1), GpioDirection.OUT);
  assert.equal(await guest.run(`${LAMP}; cat value direction`), "1\nout");
  await guest.run(`${DOOR}; echo in >direction`);
  for (const level of [1, 0, 1] as const) {
    lines.set(3, level);
    assert.equal(await guest.run(`${DOOR}; cat value`), `${level}`);
  }

  // An interrupt of each kind; Linux counts them.
  const count = async (): Promise<number> =>
    Number(await guest.run("awk '/gpiolib/ { print $2 }' /proc/interrupts"));
  for (const [edge, pattern] of [["rising", [1, 0]], ["falling", [0, 1]], ["both", [1, 1]]] as const) {
    lines.set(0, 0);
    await guest.run(`${BUTTON}; echo in >direction; echo ${edge} >edge`);
    const first = await count();
    for (const [i, level] of ([1, 0] as const).entries()) {
      const before = await count();
      lines.set(0, level);
      const expected = before + pattern[i];
      await guest.waitFor(`[ "$(awk '/gpiolib/ { print $2 }' /proc/interrupts)" = ${expected} ]`);
    }
    // Linux starts anew when an interrupt is asked for again.
    assert.equal(await count() - first, pattern[0] + pattern[1], edge);
    await guest.run(`${BUTTON}; echo none >edge`);
  }
  // Given up, a line has no direction any more.
  await guest.run(`${BASE}; for n in 0 1 3; do echo $((base + n)) >/sys/class/gpio/unexport; done`);
  for (const each of [0, 1, 3]) assert.equal(lines.direction(each), GpioDirection.NONE);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest("the command line serves lines that are wired", ["qemu", "guest"], {}, async (t) => {
  const socket = join(tempDir(t), "gpio.sock");
  const child = startCommand(t, [
    "gpio",
    `--socket-path=${socket}`,
    "--device-list=s8",
    "--names=out,in",
    "--wire=0:1",
  ]);
  await child.waitLine(/^vhost-user gpio: 8 lines on /);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-gpio-pci", socket);
  await guest.waitFor("ls /sys/class/gpio/gpiochip* >/dev/null 2>&1");
  const [OUT, IN] = [line(0, "out"), line(1, "in")];
  await guest.run(`${IN}; echo in >direction`);
  assert.equal(await guest.run(`${OUT}; echo high >direction; ${IN}; cat value`), "1");
  await child.waitLine(/^line 0 \(out\): 1$/);
  assert.equal(await guest.run(`${OUT}; echo 0 >value; ${IN}; cat value`), "0");
  await child.waitLine(/^line 0 \(out\): 0$/);
  await guest.unplug();
  await guest.stop();
  assert.equal(child.code, undefined);
});
