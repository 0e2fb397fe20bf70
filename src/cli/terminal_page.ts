/**
 * The page of a terminal in the browser. It loads nothing from anywhere but here.
 *
 * @module
 */

import { fit, style, xterm } from "./terminal_files/deno.ts";

const html = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>terminal</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="xterm.css">
<link rel="stylesheet" href="page.css">
</head>
<body>
<div id="terminal"></div>
<div id="state" role="status" hidden></div>
<script src="xterm.js"></script>
<script src="fit.js"></script>
<script src="page.js"></script>
</body>
</html>
`;

const pageStyle = `html, body { height: 100%; margin: 0; background: #000; }
#terminal { position: absolute; inset: 4px; }
#state { position: absolute; top: 8px; right: 24px; padding: 4px 12px; border-radius: 4px;
  font: 14px sans-serif; color: #fff; background: #a33; z-index: 10; }
`;

// What has been shown is acknowledged, so that a guest that writes faster than the browser draws waits for it.
const script = `"use strict";
const terminal = window.terminal = new Terminal({ cursorBlink: true, scrollback: 10000 });
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("terminal"));
fit.fit();
terminal.focus();
const state = document.getElementById("state");
const name = decodeURIComponent(location.hash.slice(1)) || "terminal";
document.title = name;
let socket;
const open = () => socket !== undefined && socket.readyState === WebSocket.OPEN;
const tell = (message) => { if (open()) socket.send(JSON.stringify(message)); };
const sendSize = () => tell({ size: [terminal.cols, terminal.rows] });
function connect() {
  const url = new URL("socket", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { terminal.reset(); state.hidden = true; sendSize(); };
  socket.onmessage = ({ data }) =>
    terminal.write(new Uint8Array(data), () => tell({ shown: data.byteLength }));
  socket.onclose = ({ code }) => {
    state.hidden = false;
    // 4000: another window has taken over; coming back would start a quarrel.
    state.textContent = code === 4000 ? "opened in another window" : "not connected";
    if (code !== 4000) setTimeout(connect, 1000);
  };
}
const encoder = new TextEncoder();
terminal.onData((text) => { if (open()) socket.send(encoder.encode(text)); });
terminal.onBinary((text) => { if (open()) socket.send(Uint8Array.from(text, (c) => c.charCodeAt(0))); });
terminal.onResize(sendSize);
addEventListener("resize", () => fit.fit());
connect();
`;

const SCRIPT = "text/javascript; charset=utf-8";
const STYLE = "text/css; charset=utf-8";

/** The files of the page by name: type and contents. */
export const files: Readonly<Record<string, readonly [type: string, text: string]>> = {
  "": ["text/html; charset=utf-8", html],
  "xterm.css": [STYLE, style],
  "page.css": [STYLE, pageStyle],
  "xterm.js": [SCRIPT, xterm],
  "fit.js": [SCRIPT, fit],
  "page.js": [SCRIPT, script],
};
