import assert from "node:assert/strict";
import { join } from "node:path";
import { RtcClockType, RtcDevice, SimulatedClock, taiClock } from "../../src/devices/rtc/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { OurBackend, startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Linux's driver (virtio_rtc): smeared UTC becomes a /dev/rtcN, each clock a /dev/ptpN.

/** Shell: to the folder of our /dev/rtcN in sysfs. */
const RTC = "for r in /sys/class/rtc/rtc*; do grep -q virtio $r/name && cd $r; done; grep -q virtio name";

realTest("a guest reads clocks and is woken by an alarm", ["qemu11", "guest"], {}, async (t) => {
  const start = Date.parse("2030-12-31T23:59:50Z") / 1000;
  const clock = new SimulatedClock(RtcClockType.UTC_SMEARED, new Date(start * 1000));
  const device = await InProcess.serve(t, new RtcDevice({ clocks: [clock, taiClock()] }));
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-rtc-pci", device.socket);
  await guest.waitFor(`(${RTC}) 2>/dev/null && [ -c /dev/ptp1 ]`);
  assert.equal(await guest.run(`${RTC}; cat since_epoch date time`), `${start}\n2030-12-31\n23:59:50`);
  clock.advance(15);
  assert.equal(await guest.run(`${RTC}; cat since_epoch date time`), `${start + 15}\n2031-01-01\n00:00:05`);

  // The kernel keeps alarms in a list and hands the next to us; it is gone from there when it went off.
  await guest.run(`${RTC}; echo ${start + 60} >wakealarm`);
  clock.advance(30);
  assert.equal(await guest.run(`${RTC}; cat wakealarm`), `${start + 60}`);
  clock.advance(30);
  await guest.waitFor(`(${RTC}; [ -z "$(cat wakealarm)" ])`);

  const names = await guest.run("cat /sys/class/ptp/ptp*/clock_name");
  assert.match(names, /Virtio PTP type 3\/variant 0\nVirtio PTP type 1\/variant 0/);
  const tai = await guest.run(
    "for p in /sys/class/ptp/ptp*; do grep -q 'type 1' $p/clock_name && hardware clock /dev/${p##*/}; done",
  );
  const difference = BigInt(Date.now()) - (BigInt(tai) / 1_000_000n - 37_000n);
  assert.ok(difference >= 0n && difference < 10_000n, `${difference} ms`);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest("the command line serves clocks", ["qemu11", "guest"], {}, async (t) => {
  const socket = join(tempDir(t), "rtc.sock");
  const child = startCommand(t, [
    "rtc",
    `--socket-path=${socket}`,
    "--time=2040-02-29T12:00:00Z",
    "--no-tai",
  ]);
  await child.waitLine(/^vhost-user rtc: 3 clocks on /);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  const backend = new OurBackend(t, child, socket);
  await guest.plug("vhost-user-rtc-pci", socket);
  await guest.waitFor(`(${RTC}) 2>/dev/null && [ -c /dev/ptp2 ]`);
  assert.match(await guest.run(`${RTC}; cat date time`), /^2040-02-29\n12:0\d:\d\d$/);
  await guest.unplug();
  await guest.stop();
  await backend.checkUnharmed();
});
