/**
 * `vhost-user input`.
 *
 * @module
 */

import { EvdevDevice } from "../devices/input/mod.ts";
import { type Command, UsageError } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** Passes an input device through. */
export const input: Command = {
  summary: "Passes a keyboard, mouse or other input device of this machine to a virtual machine.",
  options: {
    "evdev-path": { value: "PATH", offer: "file", help: "The device, such as /dev/input/event3." },
    "no-grab": { help: "Leave the device's events to this machine as well." },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user input --socket-path=/tmp/input.sock --evdev-path=/dev/input/event3",
      "Passes a device through. Attach it in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/input.sock -device vhost-user-input-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and nothing arrives.",
    ],
  ],
  capabilities: { type: "input", features: ["evdev-path", "no-grab"] },
  run: async (values, output) => {
    const path = values["evdev-path"];
    if (path === undefined) throw new UsageError("give --evdev-path");
    const options = serveOptions(values, output);
    const device = EvdevDevice.open({
      path: String(path),
      grab: values["no-grab"] !== true,
      onGone: (error) => options.log?.("error", `input: ${path} is gone`, error),
    });
    try {
      const what = `vhost-user input: ${path}, ${JSON.stringify(device.profile.name)},`;
      await serveUntilSignal(device, options, what, output, () => {});
    } finally {
      device.close();
    }
    return 0;
  },
};
