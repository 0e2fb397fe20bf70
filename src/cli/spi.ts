/**
 * `vhost-user spi`.
 *
 * @module
 */

import { errorText } from "../../mod.ts";
import {
  BackedBytes,
  HostSpiBus,
  SimulatedSpiBus,
  type SpiBus,
  SpiDevice,
  SpiFlash,
} from "../devices/spi/mod.ts";
import { type Command, UsageError, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** A flash of a number of bytes, or one whose bytes are a file's. */
function flashOf(text: string, closers: (() => void)[]): SpiFlash {
  const [, value] = /^flash(?:=(.+))?$/.exec(text) ?? [];
  if (value === undefined && text !== "flash") {
    throw new UsageError(
      `--device takes /dev/spidevB.C, or a list of flash, flash=BYTES, flash=FILE; got '${text}'`,
    );
  }
  if (value === undefined || /^\d+$/.test(value)) {
    return new SpiFlash({ size: value === undefined ? undefined : wholeNumber("device", value, 0, 1 << 24) });
  }
  const file = new BackedBytes(value);
  closers.push(() => file.close());
  return new SpiFlash({ data: file.data, onWrite: (offset, length) => file.save(offset, length) });
}

/** Serves an SPI controller. */
export const spi: Command = {
  summary:
    "Serves an SPI controller to a virtual machine, with simulated flash memories or a part of this machine.",
  options: {
    "device": {
      value: "DEVICE",
      help: "What is at chip select 0, 1 and so on, separated by commas: flash (1 MiB), flash=BYTES,\n" +
        "flash=FILE (which keeps what is written); or /dev/spidevB.C, a part of this machine\n" +
        "(not tried on hardware). Default: flash.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user spi --socket-path=/tmp/spi.sock --device=flash=/tmp/flash.bin",
      "A flash memory that is a file: a power of two of bytes, 64 KiB to 16 MiB.",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/spi.sock -device vhost-user-spi-pci,chardev=c …",
      "Attaches it (QEMU 11). The guest needs the driver spi-virtio.",
    ],
  ],
  capabilities: { type: "spi", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const spec = String(values.device ?? "flash");
    const closers: (() => void)[] = [];
    try {
      let bus: SpiBus;
      if (spec.startsWith("/dev/spidev")) {
        bus = new HostSpiBus({ path: spec });
        closers.push(() => bus.close?.());
      } else {
        bus = new SimulatedSpiBus(spec.split(",").map((text) => flashOf(text, closers)));
      }
      const device = new SpiDevice({
        bus,
        onError: (error) => options.log?.("warning", `spi: a transfer failed: ${errorText(error)}`),
      });
      await serveUntilSignal(device, options, `vhost-user spi: ${spec}`, output, () => {});
    } finally {
      for (const close of closers) close();
    }
    return 0;
  },
};
