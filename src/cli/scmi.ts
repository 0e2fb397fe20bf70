/**
 * `vhost-user scmi`.
 *
 * @module
 */

import { errorText } from "../../mod.ts";
import {
  clockProtocol,
  ScmiDevice,
  sensorProtocol,
  SimulatedScmiClock,
  SimulatedSensor,
} from "../devices/scmi/mod.ts";
import { type Command, UsageError } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** Serves sensors and clocks. */
export const scmi: Command = {
  summary: "Serves simulated sensors and clocks to a virtual machine, by SCMI.",
  options: {
    "device": {
      value: "DEVICES",
      help: "Separated by commas: sensor:NAME=CELSIUS, clock:NAME=HZ, clock:NAME=MIN-MAX (in steps\n" +
        "of 1 Hz). Default: sensor:soc=40,clock:uart=1000000-48000000.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user scmi --socket-path=/tmp/scmi.sock --device=sensor:soc=41.5,clock:uart=48000000",
      "A temperature sensor and a clock. Prints what the guest makes of the clock.",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/scmi.sock \\\n" +
      "    -device vhost-user-test-device-pci,virtio-id=32,num_vqs=2,vq_size=64,config_size=0,chardev=c …",
      "Attaches them (QEMU 11; for Arm: vhost-user-scmi-pci). Linux has a driver on Arm only.",
    ],
  ],
  capabilities: { type: "scmi", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const spec = String(values.device ?? "sensor:soc=40,clock:uart=1000000-48000000");
    const sensors: SimulatedSensor[] = [];
    const clocks: SimulatedScmiClock[] = [];
    const onChange = ({ name, rate, enabled }: SimulatedScmiClock) =>
      output.out(`clock ${name}: ${enabled ? "on" : "off"}, ${rate} Hz`);
    for (const text of spec.split(",")) {
      const [, name, celsius] = /^sensor:([^=]+)=(-?\d+(?:\.\d+)?)$/.exec(text) ?? [];
      const [, clock, min, max = min] = /^clock:([^=]+)=(\d+)(?:-(\d+))?$/.exec(text) ?? [];
      if (name !== undefined) {
        sensors.push(new SimulatedSensor(name, Number(celsius)));
      } else if (clock !== undefined) {
        const rates = { min: Number(min), max: Number(max), step: min === max ? 0 : 1 };
        clocks.push(new SimulatedScmiClock({ name: clock, rate: rates.min, rates, onChange }));
      } else {
        throw new UsageError(
          `--device takes sensor:NAME=CELSIUS, clock:NAME=HZ or clock:NAME=MIN-MAX; got '${text}'`,
        );
      }
    }
    const device = new ScmiDevice({
      protocols: [
        ...sensors.length > 0 ? [sensorProtocol(sensors)] : [],
        ...clocks.length > 0 ? [clockProtocol(clocks)] : [],
      ],
      onError: (error) => options.log?.("warning", `scmi: a command failed: ${errorText(error)}`),
    });
    await serveUntilSignal(device, options, `vhost-user scmi: ${spec}`, output, () => {});
    return 0;
  },
};
