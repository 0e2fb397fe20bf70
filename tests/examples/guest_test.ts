import assert from "node:assert/strict";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { tempDir } from "../support/cleanup.ts";
import type { Guest, PlugOptions } from "../support/guest.ts";
import { startExample } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { connectUnix } from "../support/stream.ts";

// The smaller examples as they stand, in Linux guests: each is there, and does what it says.

/** An example in a guest. */
interface Plugged {
  readonly example: string;
  readonly driver: string;
  readonly props?: PlugOptions["props"];
  /** Shell: true when the guest's driver is ready. */
  readonly ready: string;
  /** Shell, and what it has to say. */
  readonly asks: readonly (readonly [command: string, says: RegExp])[];
  /** What the example then says. */
  readonly hears?: RegExp;
}

const BUS =
  'for b in /sys/bus/i2c/devices/i2c-*; do grep -q virtio $b/name && bus=${b##*-}; done; [ "$bus" ]';
const RTC = "for r in /sys/class/rtc/rtc*; do grep -q virtio $r/name && cd $r; done; grep -q virtio name";
const LAMP = "cd /sys/class/gpio; base=$(cat gpiochip*/base); echo $((base + 1)) >export; cd lamp";
/** Somebody to log in at, with a prompt and without a line editor. */
const LOGIN = "printf '%s\\n' '#!/bin/sh' 'printf \"login: \"; read name' " +
  '\'while printf "# "; read line; do [ "$line" = poweroff ] && exit; eval "$line"; done\' >/tmp/login; ' +
  "chmod +x /tmp/login; setsid getty -n -l /tmp/login -L 115200 hvc0 linux </dev/null >/dev/null 2>&1 &";

const FIRST: readonly Plugged[] = [
  {
    example: "gpio",
    driver: "vhost-user-gpio-pci",
    ready: "ls /sys/class/gpio/gpiochip* >/dev/null 2>&1",
    asks: [["cat /sys/class/gpio/gpiochip*/ngpio", /^2$/], [
      `${LAMP}; echo out >direction; echo 1 >value`,
      /^$/,
    ]],
    hears: /^lamp: 1$/m,
  },
  {
    example: "i2c",
    driver: "vhost-user-i2c-pci",
    ready: `${BUS} && [ -c /dev/i2c-$bus ]`,
    asks: [[`${BUS}; i2cget -y $bus 0x20`, /^0x[0-9a-f]{2}$/], [`${BUS}; i2cget -y $bus 0x50 0 b`, /^0x/]],
  },
  {
    example: "keyboard",
    driver: "vhost-user-input-pci",
    ready: `grep -q '"typist"' /proc/bus/input/devices`,
    asks: [],
  },
  {
    example: "rng",
    driver: "vhost-user-rng-pci",
    ready: "grep -q virtio /sys/class/misc/hw_random/rng_current",
    asks: [["dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c", /^64$/]],
  },
];

const SECOND: readonly Plugged[] = [
  {
    example: "scsi",
    driver: "vhost-user-scsi-pci",
    ready: "[ -b /dev/sda ]",
    asks: [["cat /sys/block/sda/size", /^131072$/], ["tail -c 6 /sys/block/sda/device/vpd_pg80", /system/]],
  },
  {
    example: "sound",
    driver: "vhost-user-snd-pci",
    ready: "[ -e /dev/snd/controlC0 ]",
    asks: [["cat /proc/asound/cards", /VirtIO SoundCard/]],
  },
  {
    example: "vsock",
    driver: "vhost-user-vsock-pci",
    ready: "[ -e /dev/vsock ]",
    asks: [["vsock connect 2 1234 text:hello shut gettext", /^HELLO$/]],
  },
  {
    example: "bad_disk",
    driver: "vhost-user-blk-pci",
    ready: "[ -b /dev/vda ]",
    asks: [
      ["blockdev --getsize64 /dev/vda", /^67108864$/],
      // The hundredth write.
      [
        "for i in $(seq 105); do dd if=/dev/zero of=/dev/vda bs=4k seek=$i count=1 conv=fsync 2>/dev/null || echo $i fails; done",
        /^\d+ fails$/,
      ],
    ],
  },
];

const ELEVEN: readonly Plugged[] = [
  {
    example: "spi",
    driver: "vhost-user-spi-pci",
    ready: "[ -c /dev/mtd0 ]",
    asks: [["cat /sys/class/mtd/mtd0/size", /^1048576$/]],
  },
  {
    example: "rtc",
    driver: "vhost-user-rtc-pci",
    ready: `(${RTC}) 2>/dev/null`,
    asks: [[`${RTC}; cat date`, /^2030-01-01$/]],
  },
  {
    example: "console",
    driver: "vhost-user-test-device-pci",
    props: { "virtio-id": 3, num_vqs: 4, vq_size: 64, config_size: 12 },
    ready: "[ -c /dev/hvc0 ]",
    asks: [[LOGIN, /^$/]],
    hears: /^Linux .*x86_64/m,
  },
];

async function plug(t: TestContext, guest: Guest, plugged: Plugged, slot: number): Promise<Child> {
  const { example, driver, props, ready } = plugged;
  const socket = join(tempDir(t), `${example}.sock`);
  const child = startExample(t, example, socket);
  // A socket's file is there a moment before anybody listens.
  await connectUnix(socket, 30_000, () => child.code === undefined ? undefined : child.output).then((probe) =>
    probe.destroy()
  );
  await guest.plug(driver, socket, { id: `vu${slot}`, slot, props });
  await guest.waitFor(ready, 30_000);
  return child;
}

async function together(
  t: TestContext,
  list: readonly Plugged[],
  emulator: "qemu" | "qemu11",
): Promise<void> {
  const guest = await restoreGuest(t, { emulator });
  for (const [slot, plugged] of list.entries()) {
    const child = await plug(t, guest, plugged, slot);
    for (const [command, says] of plugged.asks) {
      const said = await guest.run(command, 60_000);
      assert.match(said, says, `${plugged.example}: ${command}: ${said}`);
    }
    if (plugged.hears !== undefined) await child.waitLine(plugged.hears, 30_000);
    assert.equal(child.code, undefined, child.output);
  }
  await guest.stop();
}

const names = (list: readonly Plugged[]): string => list.map(({ example }) => example).join(", ");

for (const list of [FIRST, SECOND]) {
  realTest(`in a guest: ${names(list)}`, ["qemu", "guest"], {}, (t) => together(t, list, "qemu"));
}
realTest(
  `in a guest of QEMU 11: ${names(ELEVEN)}`,
  ["qemu11", "guest"],
  {},
  (t) => together(t, ELEVEN, "qemu11"),
);
