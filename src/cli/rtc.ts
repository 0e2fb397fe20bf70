/**
 * `vhost-user rtc`.
 *
 * @module
 */

import { errorText } from "../../mod.ts";
import {
  monotonicClock,
  type RtcClock,
  RtcClockType,
  RtcDevice,
  SimulatedClock,
  smearedUtcClock,
  taiClock,
  utcClock,
} from "../devices/rtc/mod.ts";
import { type Command, UsageError } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** Serves clocks. */
export const rtc: Command = {
  summary: "Serves clocks to a virtual machine: UTC, smeared UTC, TAI and monotonic time, UTC with alarms.",
  options: {
    "no-utc": { help: "Leave out UTC." },
    "no-smeared-utc": { help: "Leave out smeared UTC (of which Linux makes a /dev/rtcN)." },
    "no-tai": { help: "Leave out TAI." },
    "no-monotonic": { help: "Leave out monotonic time." },
    "no-offer-alarm": { help: "Offer no alarms." },
    "time": {
      value: "DATE",
      help: "Start UTC clocks at this time, such as 2030-12-31T23:59:50Z, instead of this machine's.",
    },
    ...servingOptions,
  },
  examples: [
    ["vhost-user rtc --socket-path=/tmp/rtc.sock", "This machine's clocks."],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/rtc.sock -device vhost-user-rtc-pci,chardev=c …",
      "Attaches them (QEMU 11). The guest needs the driver virtio_rtc (Linux 6.17).",
    ],
  ],
  capabilities: { type: "rtc", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const { UTC, UTC_SMEARED } = RtcClockType;
    const start = values.time === undefined ? undefined : new Date(String(values.time));
    if (start !== undefined && Number.isNaN(start.getTime())) {
      throw new UsageError(`--time is a date such as 2030-12-31T23:59:50Z, got '${values.time}'`);
    }
    const clocks: RtcClock[] = [];
    if (values["no-utc"] !== true) {
      clocks.push(start === undefined ? utcClock() : new SimulatedClock(UTC, start, 1));
    }
    if (values["no-smeared-utc"] !== true) {
      clocks.push(start === undefined ? smearedUtcClock() : new SimulatedClock(UTC_SMEARED, start, 1));
    }
    if (values["no-tai"] !== true) clocks.push(taiClock());
    if (values["no-monotonic"] !== true) clocks.push(monotonicClock());
    const withoutAlarm = values["no-offer-alarm"] === true;
    const device = new RtcDevice({
      clocks: withoutAlarm
        ? clocks.map((clock) => ({ ...clock, alarm: false, read: () => clock.read() }))
        : clocks,
      onError: (error) => options.log?.("warning", `rtc: a clock failed: ${errorText(error)}`),
    });
    await serveUntilSignal(device, options, `vhost-user rtc: ${clocks.length} clocks`, output, () => {});
    return 0;
  },
};
