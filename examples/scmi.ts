/**
 * A sensor by SCMI: a processor that gets warm and cools down again.
 *
 *     deno run --allow-ffi examples/scmi.ts
 *
 * and the socket is `/tmp/scmi.sock`. In QEMU 11 it is `-device vhost-user-scmi-pci`; Linux has its driver on Arm.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { ScmiDevice, sensorProtocol, SimulatedSensor } from "@vhost/user/devices/scmi";

// A processor that gets warm and cools down again.
const sensor = new SimulatedSensor("soc", 40);
setInterval(() => sensor.value = 40 + 30 * Math.sin(performance.now() / 10_000) ** 2, 100);

await serve(new ScmiDevice({ protocols: [sensorProtocol([sensor])] }), { socketPath: "/tmp/scmi.sock" });
