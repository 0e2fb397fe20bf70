import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Buffer } from "node:buffer";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import { peerPath } from "./peers.ts";
import { Child } from "./process.ts";

/** How long to wait for something, in milliseconds. */
const PATIENCE = 30_000;

/** A page in a headless Chromium, driven by its DevTools protocol. */
export class Page {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #next = 0;
  /** What the page has asked the network for. */
  readonly requests: string[] = [];
  /** Exceptions and error messages of the page. */
  readonly errors: string[] = [];

  /** Starts the browser and opens a page. Both go at the end of the test. */
  static async open(scope: Scope, url: string): Promise<Page> {
    const browser = Child.start(scope, peerPath("chromium"), [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
      ...["--remote-debugging-port=0", `--user-data-dir=${tempDir(scope)}`, "about:blank"],
    ]);
    const line = await browser.waitLine(/DevTools listening on ws:/, PATIENCE);
    const [, address] = /ws:\/\/([^/]+)/.exec(line) ?? [];
    const list = await (await fetch(`http://${address}/json/list`)).json() as Record<string, string>[];
    const target = list.find(({ type }) => type === "page");
    if (target === undefined) throw new Error("the browser has no page");
    const socket = new WebSocket(target.webSocketDebuggerUrl);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const page = new Page(socket);
    onEnd(scope, () => socket.close());
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await page.call(`${domain}.enable`);
    await page.call("Page.navigate", { url });
    return page;
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const { id, method, params, result, error } = JSON.parse(data);
      if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
      if (method === "Runtime.exceptionThrown") this.errors.push(params.exceptionDetails.text);
      if (method === "Log.entryAdded" && params.entry.level === "error") this.errors.push(params.entry.text);
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(result);
      else waiting?.reject(new Error(error.message));
    };
  }

  /** Calls a method of the protocol. */
  call(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#next;
    this.#socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** The value of an expression in the page. */
  async value(expression: string): Promise<unknown> {
    const { result } = await this.call("Runtime.evaluate", { expression, returnByValue: true }) as {
      result: { value?: unknown };
    };
    return result.value;
  }

  /** Waits until an expression in the page is true. */
  async until(expression: string): Promise<void> {
    for (const deadline = Date.now() + PATIENCE; await this.value(expression) !== true; await sleep(20)) {
      if (Date.now() > deadline) throw new Error(`in vain: ${expression}; errors: ${this.errors}`);
    }
  }

  /** Types text, a key after the other; a line end is the return key. */
  async type(text: string): Promise<void> {
    for (const character of text) {
      const enter = character === "\n";
      const key = enter
        ? { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" }
        : { key: character, text: character };
      await this.call("Input.dispatchKeyEvent", { type: "keyDown", ...key });
      await this.call("Input.dispatchKeyEvent", { type: "keyUp", ...key });
    }
  }

  /** Sets the size of the window. */
  async resize(width: number, height: number): Promise<void> {
    await this.call("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: false,
    });
  }

  /** Takes a picture, for people. */
  async picture(path: string): Promise<void> {
    const { data } = await this.call("Page.captureScreenshot") as { data: string };
    writeFileSync(path, Buffer.from(data, "base64"));
  }
}
