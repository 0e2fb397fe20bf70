/**
 * `vhost-user i2c`.
 *
 * @module
 */

import { errorText } from "../../mod.ts";
import {
  BackedBytes,
  Eeprom,
  HostI2cBus,
  type I2cBus,
  I2cDevice,
  type I2cPart,
  Lm75,
  SimulatedI2cBus,
} from "../devices/i2c/mod.ts";
import { type Command, UsageError, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

const WHAT = "eeprom@ADDRESS[=BYTES or FILE], lm75@ADDRESS[=CELSIUS] or BUS:ADDRESS[:ADDRESS…]";

/** An address, decimal or with 0x. */
function addressOf(text: string): number {
  const number = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : NaN;
  if (!(number >= 0x08 && number <= 0x77)) {
    throw new UsageError(`an I2C address is 0x08 to 0x77 (8 to 119), got '${text}'`);
  }
  return number;
}

/** An EEPROM of a number of bytes, or one whose bytes are a file's. */
function eepromOf(address: number, value: string, closers: (() => void)[]): I2cPart {
  if (/^\d*$/.test(value)) return new Eeprom({ address, size: value === "" ? 256 : Number(value) });
  const file = new BackedBytes(value);
  closers.push(() => file.close());
  return new Eeprom({ address, data: file.data, onWrite: (offset, length) => file.save(offset, length) });
}

function partOf(text: string, closers: (() => void)[]): I2cPart {
  const [, kind, address, value = ""] = /^(\w+)@(\w+)(?:=(.*))?$/.exec(text) ?? [];
  switch (kind) {
    case "eeprom":
      return eepromOf(addressOf(address), value, closers);
    case "lm75":
      if (!/^(-?\d+(\.\d+)?)?$/.test(value)) {
        throw new UsageError(`lm75: a temperature such as 21.5, got '${value}'`);
      }
      return new Lm75(addressOf(address), value === "" ? 25 : Number(value));
    default:
      throw new UsageError(`--device-list takes ${WHAT}; got '${text}'`);
  }
}

/** Serves an I²C adapter. */
export const i2c: Command = {
  summary:
    "Serves an I2C adapter to a virtual machine, with simulated parts or those of a bus of this machine.",
  options: {
    "device-list": {
      value: "DEVICES",
      help: "What is on the bus, separated by commas: simulated parts eeprom@ADDRESS (256 bytes),\n" +
        "eeprom@ADDRESS=BYTES, eeprom@ADDRESS=FILE (which keeps what is written),\n" +
        "lm75@ADDRESS=CELSIUS; or BUS:ADDRESS:ADDRESS… for those parts of /dev/i2c-BUS\n" +
        "(not tried on hardware). Default: eeprom@0x50,lm75@0x48=25.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user i2c --socket-path=/tmp/i2c.sock --device-list=eeprom@0x50=/tmp/eeprom.bin,lm75@0x48=21.5",
      "A bus with an EEPROM and a temperature sensor. In the guest: i2cdetect -y 0",
    ],
    [
      "vhost-user i2c --socket-path=/tmp/i2c.sock --device-list=2:0x20:0x21",
      "Two parts of the bus /dev/i2c-2 of this machine, and no others.",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/i2c.sock -device vhost-user-i2c-pci,chardev=c …",
      "Attaches it. The guest needs the driver i2c-virtio.",
    ],
  ],
  capabilities: { type: "i2c", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const spec = String(values["device-list"] ?? "eeprom@0x50,lm75@0x48=25");
    const onError = (error: unknown) =>
      options.log?.("warning", `i2c: a request failed: ${errorText(error)}`);
    const closers: (() => void)[] = [];
    try {
      let bus: I2cBus;
      const host = /^(\d+):(.*)$/.exec(spec);
      if (host !== null) {
        const number = wholeNumber("device-list", host[1], 0, 0xffff);
        bus = new HostI2cBus({ path: `/dev/i2c-${number}`, addresses: host[2].split(":").map(addressOf) });
        closers.push(() => bus.close?.());
      } else {
        bus = new SimulatedI2cBus(spec.split(",").map((part) => partOf(part, closers)), onError);
      }
      await serveUntilSignal(
        new I2cDevice({ bus, onError }),
        options,
        `vhost-user i2c: ${spec}`,
        output,
        () => {},
      );
    } finally {
      for (const close of closers) close();
    }
    return 0;
  },
};
