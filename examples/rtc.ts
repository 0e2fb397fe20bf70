import { serve } from "@vhost/user";
import { RtcClockType, RtcDevice, SimulatedClock } from "@vhost/user/devices/rtc";

// A guest that lives through a day in 24 minutes.
const clock = new SimulatedClock(RtcClockType.UTC_SMEARED, new Date("2030-01-01T00:00:00Z"), 60);
await serve(new RtcDevice({ clocks: [clock] }), { socketPath: "/tmp/rtc.sock" });
