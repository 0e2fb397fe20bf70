/**
 * `vhost-user trace`.
 *
 * @module
 */

import process from "node:process";
import { Reactor } from "../../ffi/reactor.ts";
import { errorText, type Log } from "../backend/log.ts";
import { deviceTypes } from "../tools/device_types.ts";
import { entryJson, summaryJson } from "../tools/trace/json.ts";
import { LineWriter } from "../tools/trace/line_writer.ts";
import { summaryLines } from "../tools/trace/summary.ts";
import { entryLines } from "../tools/trace/text.ts";
import { Tracer } from "../tools/trace/tracer.ts";
import { painter } from "./colour.ts";
import { enterSandbox, sandboxMode, sandboxOption, withSockets } from "./sandbox.ts";
import { type Command, fileMode, type Output, UsageError, type Values } from "./command.ts";

const STDOUT = 1;
/** How long the end waits for whoever reads the trace, ms. */
const LAST_WORDS = 5000;

/** Tells what a front-end and a back-end say to each other. */
export const trace: Command = {
  summary: "Shows every message between a front-end and a back-end. Stands between them and changes nothing.",
  options: {
    "listen": {
      value: "PATH",
      offer: "file",
      help: "Listen on this Unix socket: the one that the front-end is given.",
    },
    "connect": {
      value: "PATH",
      offer: "file",
      help: "Connect to this Unix socket, where the back-end listens.",
    },
    "reverse": { help: "It is the back-end that connects to --listen; the front-end listens on --connect." },
    "device": {
      value: "TYPE",
      choices: Object.keys(deviceTypes),
      help: `Name the feature bits of this device type:\n${Object.keys(deviceTypes).join(", ")}.`,
    },
    "json": { help: "Print one JSON object per line (docs/trace.md)." },
    "socket-mode": { value: "MODE", help: "Permission bits of the socket file, octal (default 600)." },
    ...sandboxOption,
  },
  examples: [
    [
      "vhost-user trace --listen=/tmp/seen.sock --connect=/tmp/disk.sock --device=blk",
      "Shows what comes to /tmp/seen.sock and passes it on to the back-end at /tmp/disk.sock.",
    ],
    [
      "qemu-system-x86_64 … -chardev socket,id=c,path=/tmp/seen.sock -device vhost-user-blk-pci,chardev=c …",
      "Only the path is another. SIGUSR2 prints a summary; so does the end.",
    ],
  ],
  run: async (values, output) => {
    const { listen, connect, json } = values;
    if (listen === undefined || connect === undefined) {
      throw new UsageError("give both --listen and --connect");
    }
    if (listen === connect) throw new UsageError("--listen and --connect must not be the same");
    await traceUntilSignal(values, output, json === true);
    return 0;
  },
};

async function traceUntilSignal(values: Values, output: Output, json: boolean): Promise<void> {
  const { listen, connect, device, reverse, "socket-mode": mode } = values;
  const sandbox = sandboxMode(values);
  const deviceFeatures = device === undefined ? undefined : deviceTypes[String(device)];
  const paint = painter(process.stdout);
  const writer = new LineWriter(STDOUT, Reactor.shared(), {
    lost: (lines) =>
      json ? JSON.stringify({ type: "lost", lines }) : `… ${lines} lines are left out: nobody has read them`,
    onGone: (error) =>
      output.error(`vhost-user trace: ${errorText(error)}; messages are passed on all the same`),
  });
  if (sandbox !== "off") await Reactor.shared().prepare();
  const tracer = new Tracer({
    listen: String(listen),
    connect: String(connect),
    accepts: reverse === true ? "back-end" : "front-end",
    socketMode: mode === undefined ? undefined : fileMode("socket-mode", String(mode)),
    onEntry: (entry) => {
      if (json) writer.write(JSON.stringify(entryJson(entry, deviceFeatures)));
      else for (const line of entryLines(entry, { deviceFeatures, paint })) writer.write(line);
    },
  });
  const say: Log = (level, text) => level === "info" ? undefined : output.error(`${level}: ${text}`);
  await enterSandbox(withSockets({ unix: true }, [String(listen)]), sandbox, say);
  const summarize = () => {
    const { rows } = tracer.summary;
    if (json) writer.write(JSON.stringify(summaryJson(rows)));
    else for (const line of ["", ...summaryLines(rows), ""]) writer.write(line);
  };
  const stop = () => tracer.close();
  // Not SIGUSR1, at which Deno opens a port for debuggers.
  const signals = { SIGTERM: stop, SIGINT: stop, SIGHUP: stop, SIGUSR2: summarize } as const;
  for (const [signal, action] of Object.entries(signals)) process.on(signal, action);
  output.error(`vhost-user trace: listening on ${listen}, connecting to ${connect}`);
  await tracer.finished;
  if (tracer.summary.rows.length > 0) summarize();
  await writer.end(LAST_WORDS);
  for (const [signal, action] of Object.entries(signals)) process.off(signal, action);
}
