/**
 * A guest's serial console in the browser, for everybody who has the address: all windows show the same terminal.
 *
 *     deno run --allow-ffi --allow-net=127.0.0.1 examples/web_console.ts
 *
 * prints the page's address; the socket is `/tmp/web_console.sock`. The port, 8080 by default, can follow. In QEMU 11 the
 * device is
 *
 *     -chardev socket,id=c0,path=/tmp/web_console.sock \
 *     -device vhost-user-test-device-pci,virtio-id=3,num_vqs=4,vq_size=64,config_size=12,chardev=c0
 *
 * and in the guest `/dev/hvc0`: `console=hvc0` for the kernel, `getty hvc0` to log in.
 *
 * **How.** `ScriptEnd` hands what the guest writes to a function, which sends it to each window as server-sent events; what is
 * typed comes by POST. A window that does not keep up makes the guest wait, and is closed when that takes too long. The
 * terminal is [xterm.js](https://xtermjs.org), from npm; the page loads nothing from elsewhere.
 *
 * **Limits.** Whoever knows the address has the terminal: there is a secret in it, new at each start, and no encryption, so
 * the page is at 127.0.0.1 alone. The size is fixed. `vhost-user console --consoles=web:8080` is a finished one, whose terminal
 * has the size of its window.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import process from "node:process";
import { serve } from "@vhost/user";
import { Backlog, ConsoleDevice, ScriptEnd } from "@vhost/user/devices/console";

const [COLUMNS, ROWS] = [100, 30];
/** The most that is typed, or pasted, at once, bytes. */
const MOST_INPUT = 1 << 20;
/** How long a window may make the guest wait, ms. */
const PATIENCE = 10_000;

/** xterm.js: Deno has it in its module graph; elsewhere it is a file. */
const deno = process.versions.deno !== undefined;
const read = (name: string): string => readFileSync(new URL(import.meta.resolve(name)), "utf8");
const xterm = deno
  ? (await import("@xterm/xterm/lib/xterm.js", { with: { type: "text" } })).default
  : read("@xterm/xterm/lib/xterm.js");
const style = deno
  ? (await import("@xterm/xterm/css/xterm.css", { with: { type: "text" } })).default
  : read("@xterm/xterm/css/xterm.css");

const page = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>console</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="xterm.css">
<style>body { background: #000; }</style>
<div id="terminal"></div>
<script src="xterm.js"></script>
<script>
const terminal = new Terminal({ cols: ${COLUMNS}, rows: ${ROWS}, cursorBlink: true });
terminal.open(document.getElementById("terminal"));
terminal.focus();
const output = new EventSource("output");
output.onopen = () => terminal.reset();
output.onmessage = ({ data }) => terminal.write(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)));
let sent = Promise.resolve();
// One after the other: they would overtake each other.
terminal.onData((text) => sent = sent.then(() => fetch("input", { method: "POST", body: text })).catch(() => {}));
</script>
</html>
`;

/** What the guest has written last, for windows that come later. */
const history = new Backlog();
const windows = new Set<ServerResponse>();

/** Sends to a window. Resolves when it has room for more, or is gone. */
function show(window: ServerResponse, bytes: Uint8Array): Promise<void> | undefined {
  if (window.write(`data: ${Buffer.from(bytes).toString("base64")}\n\n`)) return undefined;
  return new Promise((resolve) => {
    const timer = setTimeout(() => window.destroy(), PATIENCE);
    const done = (): void => {
      clearTimeout(timer);
      window.off("drain", done).off("close", done);
      resolve();
    };
    window.on("drain", done).on("close", done);
  });
}

const end = new ScriptEnd((bytes) => {
  const copyTo = (target: Uint8Array, at = 0): number => {
    const piece = bytes.subarray(at, at + target.length);
    target.set(piece);
    return piece.length;
  };
  history.push({ byteLength: bytes.length, copyTo }, 0);
  const waits = [...windows].map((window) => show(window, bytes)).filter((wait) => wait !== undefined);
  if (waits.length > 0) return Promise.all(waits).then(() => {});
});

function openWindow(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  void show(response, history.bytes());
  windows.add(response);
  response.on("close", () => windows.delete(response));
}

/** Gives the guest what was typed. The answer waits until the guest has taken it. */
async function input(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of request) {
    parts.push(part);
    length += part.length;
    if (length > MOST_INPUT) return void response.writeHead(413).end();
  }
  if (end.unsent < MOST_INPUT) await end.send(Buffer.concat(parts));
  response.writeHead(204).end();
}

const FILES: Readonly<Record<string, readonly [type: string, text: string]>> = {
  "": ["text/html; charset=utf-8", page],
  "xterm.js": ["text/javascript; charset=utf-8", xterm],
  "xterm.css": ["text/css; charset=utf-8", style],
};

const secret = randomBytes(16).toString("hex");
const server = createServer((request, response) => {
  const [, given, name = ""] = request.url?.split("/") ?? [];
  const file = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
  if (given !== secret) response.writeHead(404).end("not here\n");
  else if (name === "output") openWindow(response);
  else if (name === "input" && request.method === "POST") {
    input(request, response).catch(() => response.destroy());
  } else if (file !== undefined) response.writeHead(200, { "content-type": file[0] }).end(file[1]);
  else response.writeHead(404).end("not here\n");
});
server.on("error", (error) => {
  console.error(`web_console: ${error.message}`);
  process.exit(1);
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  const address = server.address();
  const port = typeof address === "object" ? address?.port : address;
  console.log(`http://127.0.0.1:${port}/${secret}/`);
});

await serve(new ConsoleDevice({ ports: [{ end, console: true }] }), { socketPath: "/tmp/web_console.sock" });
end.resize(COLUMNS, ROWS);
