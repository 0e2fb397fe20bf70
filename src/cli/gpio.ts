/**
 * `vhost-user gpio`.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { errorText } from "../../mod.ts";
import { type GpioChip, GpioDevice, GpioLines, HostGpioChip } from "../devices/gpio/mod.ts";
import { type Command, type Output, UsageError, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** Linux looks at a chip's lines one by one, and a device of 65535 keeps it busy for a while. */
const MAX_LINES = 1024;

/** `0:1,4:5` as pairs of numbers. */
function pairsOf(name: string, text: string, most: number): [number, number][] {
  return text.split(",").map((pair) => {
    const [from, to, ...more] = pair.split(":");
    if (to === undefined || more.length > 0) throw new UsageError(`--${name} is FROM:TO, got '${pair}'`);
    return [wholeNumber(name, from, 0, most), wholeNumber(name, to, 0, most)];
  });
}

/** Lets a person see and drive the lines: prints what the guest sets, and takes `LINE=0` and `LINE=1`. */
function attachTerminal(lines: GpioLines, output: Output): () => void {
  const say = (line: number): string =>
    lines.names[line] === "" ? `${line}` : `${line} (${lines.names[line]})`;
  lines.onChange = (line, level) => output.out(`line ${say(line)}: ${level}`);
  const input = createInterface({ input: process.stdin, terminal: false });
  input.on("line", (text) => {
    const [, line, level] = /^\s*(\S+?)\s*=\s*([01])\s*$/.exec(text) ?? [];
    const number = /^\d+$/.test(line ?? "") ? Number(line) : lines.names.indexOf(line);
    if (level === undefined || number < 0 || number >= lines.names.length || line === "") {
      output.error(`say LINE=0 or LINE=1 with a line's number or name, not ${JSON.stringify(text)}`);
    } else {
      lines.set(number, level === "1");
    }
  });
  return () => input.close();
}

/** Serves GPIO lines. */
export const gpio: Command = {
  summary: "Serves GPIO lines to a virtual machine: simulated ones, or those of a chip of this machine.",
  options: {
    "device-list": {
      value: "DEVICE",
      help: "sN: N simulated lines (default s8). N: the chip /dev/gpiochipN; N:LINE:LINE…: some\n" +
        "of its lines (not tried on hardware).",
    },
    "names": { value: "NAME,…", help: "Names of simulated lines, from line 0 on; some may be empty." },
    "wire": {
      value: "FROM:TO,…",
      help: "Connect simulated lines: what the guest puts out on FROM drives TO.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user gpio --socket-path=/tmp/gpio.sock --device-list=s4 --names=button,lamp",
      "Four lines. Prints what the guest sets; a line of input such as button=1 drives one.",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/gpio.sock -device vhost-user-gpio-pci,chardev=c …",
      "Attaches them. The guest needs the driver gpio-virtio.",
    ],
  ],
  capabilities: { type: "gpio", features: [] },
  run: async (values, output) => {
    const { names, wire } = values;
    const spec = String(values["device-list"] ?? "s8");
    const options = serveOptions(values, output);
    const simulated = /^s(.*)$/.exec(spec);
    let chip: GpioChip;
    let detach = (): void => {};
    if (simulated !== null) {
      const count = wholeNumber("device-list", simulated[1], 1, MAX_LINES);
      const given = names === undefined ? [] : String(names).split(",");
      if (given.length > count) throw new UsageError(`--names has ${given.length} names for ${count} lines`);
      const lines = new GpioLines(Array.from({ length: count }, (_, i) => given[i] ?? ""));
      for (const [from, to] of wire === undefined ? [] : pairsOf("wire", String(wire), count - 1)) {
        lines.wire(from, to);
      }
      chip = lines;
    } else {
      if (names !== undefined || wire !== undefined) {
        throw new UsageError("--names and --wire are for simulated lines");
      }
      const [number, ...lines] = spec.split(":").map((part) => wholeNumber("device-list", part, 0, 0xffff));
      chip = new HostGpioChip({
        path: `/dev/gpiochip${number}`,
        lines: lines.length === 0 ? undefined : lines,
      });
    }
    const { close } = chip;
    try {
      const device = new GpioDevice({
        chip,
        onError: (error) => options.log?.("warning", `gpio: a request failed: ${errorText(error)}`),
      });
      if (chip instanceof GpioLines) detach = attachTerminal(chip, output);
      await serveUntilSignal(
        device,
        options,
        `vhost-user gpio: ${chip.names.length} lines`,
        output,
        () => {},
      );
    } finally {
      detach();
      close?.call(chip);
    }
    return 0;
  },
};
