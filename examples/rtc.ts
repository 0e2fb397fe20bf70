/**
 * A clock for a guest that lives through a day in 24 minutes.
 *
 *     deno run --allow-ffi examples/rtc.ts
 *
 * and the socket is `/tmp/rtc.sock`. In QEMU 11 it is `-device vhost-user-rtc-pci`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { RtcClockType, RtcDevice, SimulatedClock } from "@vhost/user/devices/rtc";

// A guest that lives through a day in 24 minutes.
const clock = new SimulatedClock(RtcClockType.UTC_SMEARED, new Date("2030-01-01T00:00:00Z"), 60);
await serve(new RtcDevice({ clocks: [clock] }), { socketPath: "/tmp/rtc.sock" });
