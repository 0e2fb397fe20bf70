/**
 * `vhost-user console`.
 *
 * @module
 */

import process from "node:process";
import type { Log } from "../../mod.ts";
import {
  ConsoleDevice,
  type ConsoleEnd,
  LogEnd,
  LoggedEnd,
  NullEnd,
  type PortOptions,
  PtyEnd,
  StdioEnd,
  UnixEnd,
} from "../devices/console/mod.ts";
import { type Command, type Output, UsageError } from "./command.ts";
import { withSockets } from "./sandbox.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** What is opened for the ports. */
interface Opened {
  readonly ends: ConsoleEnd[];
  readonly output: Output;
  /** Socket files that are removed at the end. */
  readonly sockets: string[];
  readonly log: Log | undefined;
  stdio: StdioEnd | undefined;
}

const ENDS = "stdio, pty, unix:PATH, web:[ADDRESS:]PORT, log:PATH or null";

/** Opens an end by a short text. */
async function openEnd(text: string, label: string, opened: Opened): Promise<ConsoleEnd> {
  const at = text.indexOf(":");
  const kind = at < 0 ? text : text.slice(0, at);
  const rest = at < 0 ? "" : text.slice(at + 1);
  const onError = (error: unknown) => opened.log?.("warning", `console: ${label}`, error);
  if ((rest !== "") === ["unix", "web", "log"].includes(kind)) {
    switch (kind) {
      case "null":
        return new NullEnd();
      case "unix":
        opened.sockets.push(rest);
        return new UnixEnd({ path: rest });
      case "log":
        return new LogEnd(rest, onError);
      case "pty": {
        const end = new PtyEnd();
        opened.output.error(`info: console: ${label} is ${end.path}`);
        return end;
      }
      case "stdio":
        if (opened.stdio !== undefined) throw new UsageError("only one port can have stdio");
        return opened.stdio = new StdioEnd({ onEscape: () => process.kill(process.pid, "SIGTERM") });
      case "web": {
        // Others do without the packages behind it.
        const { WebTerminal } = await import("./web_terminal.ts");
        const end = await WebTerminal.listen(rest, label);
        opened.output.error(`info: console: ${label} is ${end.url}`);
        return end;
      }
    }
  }
  throw new UsageError(`the other end of a port is ${ENDS}; got ${JSON.stringify(text)}`);
}

/** `NAME=END` or `END`, with commas between. */
function listOf(text: string, option: string, named: boolean): { name?: string; end: string }[] {
  return text.split(",").map((each) => {
    const match = /^(?:([^=:]+)=)?(.+)$/.exec(each);
    if (match === null || (named && match[1] === undefined)) {
      throw new UsageError(
        `--${option} is a list of ${named ? "" : "[NAME=]END or "}NAME=END, got ${JSON.stringify(text)}`,
      );
    }
    return { name: match[1], end: match[2] };
  });
}

/** Serves a console. */
export const console: Command = {
  summary: "Serves terminals and channels to a virtual machine.",
  options: {
    "consoles": {
      value: "LIST",
      offer: ["stdio", "pty", "unix:", "web:", "log:", "null"],
      help: "Terminals, with commas between: [NAME=]END for each. In Linux /dev/hvc0 and so on.\n" +
        `An END is ${ENDS}. Default: stdio, and null with --ports.`,
    },
    "ports": {
      value: "LIST",
      help: "Channels for programs: NAME=END for each. In Linux /dev/virtio-ports/NAME.",
    },
    "log": {
      value: "FILE",
      offer: "file",
      help: "Add all that the guest writes to the first terminal to this file.",
    },
    "size": {
      value: "COLSxROWS",
      help: "Size of the terminals until they say so themselves, such as 80x24.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user console --socket-path=/tmp/console.sock",
      "Serves this terminal; Ctrl-] ends. Attach it in QEMU 11 by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/console.sock \\\n" +
      "    -device vhost-user-test-device-pci,virtio-id=3,num_vqs=4,vq_size=64,config_size=12,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen. num_vqs is 2 + 2 for each port.",
    ],
    [
      "vhost-user console --socket-path=/tmp/console.sock --consoles=web:8080,pty --ports=agent=unix:/tmp/agent.sock",
      "A terminal in the browser, one for screen, and a channel.",
    ],
  ],
  permissions: [{
    flags: ["--allow-net=ADDRESS:PORT", "--allow-env=WS_NO_BUFFER_UTIL"],
    when: "--consoles=web:[ADDRESS:]PORT (ADDRESS: 127.0.0.1 if not given)",
  }],
  capabilities: { type: "console", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const channels = values.ports === undefined ? [] : listOf(String(values.ports), "ports", true);
    const terminals = listOf(
      String(values.consoles ?? (channels.length > 0 ? "null" : "stdio")),
      "consoles",
      false,
    );
    const size = values.size === undefined ? undefined : /^(\d{1,5})x(\d{1,5})$/.exec(String(values.size));
    if (size === null) throw new UsageError(`--size must be such as 80x24, got ${values.size}`);
    const opened: Opened = { ends: [], output, log: options.log, sockets: [], stdio: undefined };
    try {
      const ports: PortOptions[] = [];
      for (const { name, end: text } of [...terminals, ...channels]) {
        const id = ports.length;
        const isConsole = id < terminals.length;
        const label = name ?? `hvc${id}`;
        let end = await openEnd(text, label, opened);
        if (id === 0 && values.log !== undefined) end = new LoggedEnd(end, String(values.log));
        opened.ends.push(end);
        ports.push({ end, name, console: isConsole });
      }
      const device = new ConsoleDevice({ ports });
      if (size !== undefined) {
        for (const port of device.ports) {
          if (port.isConsole && port.columns === 0) port.resize(Number(size[1]), Number(size[2]));
        }
      }
      const { stdio } = opened;
      const resized = () => stdio?.sizeChanged();
      if (stdio !== undefined) process.on("SIGWINCH", resized);
      // The standard output may be the guest's.
      const lines: Output = stdio === undefined ? output : { out: output.error, error: output.error };
      const what = `vhost-user console: ${terminals.length} terminals, ${channels.length} channels`;
      const needs = withSockets({}, opened.sockets);
      await serveUntilSignal(device, options, what, lines, () => {}, needs);
      process.off("SIGWINCH", resized);
    } finally {
      for (const end of opened.ends) end.close?.();
    }
    return 0;
  },
};
