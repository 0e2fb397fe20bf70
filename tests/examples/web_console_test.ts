import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Page } from "../support/browser.ts";
import { tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// examples/web_console.ts, between a guest and two windows of a browser.

realTest(
  "a guest's console is in all windows of a browser",
  ["qemu11", "guest", "chromium"],
  { timeout: 120_000 },
  async (t) => {
    const folder = tempDir(t);
    const socket = join(folder, "console.sock");
    const source = readFileSync(join(root, "examples/web_console.ts"), "utf8");
    const script = join(folder, "web_console.ts");
    writeFileSync(script, source.replace('"/tmp/web_console.sock"', JSON.stringify(socket)));
    const child = startDeno(t, [
      ...["--no-lock", `--config=${join(root, "deno.json")}`, "--allow-net=127.0.0.1", script, "0"],
    ]);
    const url = await child.waitLine(/^http:/, 30_000);
    await child.waitSocket(socket, 30_000);
    const guest = await restoreGuest(t, { emulator: "qemu11" });
    const props = { "virtio-id": 3, num_vqs: 4, vq_size: 64, config_size: 12 };
    await guest.plug("vhost-user-test-device-pci", socket, { props });
    await guest.waitFor("[ -c /dev/hvc0 ]");
    await guest.run("setsid getty -n -l /bin/sh -L 115200 hvc0 linux </dev/null >/dev/null 2>&1 &");

    const { origin } = new URL(url);
    for (const path of ["", "0".repeat(32) + "/", "0".repeat(32) + "/output"]) {
      assert.equal((await fetch(`${origin}/${path}`)).status, 404, path);
    }
    const shown = (text: string) =>
      `Array.from({ length: terminal.buffer.active.length }, (_, i) => terminal.buffer.active.getLine(i)?.translateToString(true)).join("\\n").includes(${
        JSON.stringify(text)
      })`;
    const first = await Page.open(t, url);
    await first.until("typeof terminal === 'object'");
    await first.until(shown("built-in shell"));
    await first.type("echo $((6 * 7)) times\n");
    await first.until(shown("42 times"));
    assert.equal(await guest.run("stty -F /dev/hvc0 size"), "30 100");
    // One that comes later has seen what was there.
    const second = await Page.open(t, url);
    await second.until("typeof terminal === 'object'");
    await second.until(shown("42 times"));
    await second.type("echo from the $((1 + 1))nd\n");
    await first.until(shown("from the 2nd"));
    assert.deepEqual([...first.errors, ...second.errors], []);
    const foreign = first.requests.filter((each) => !each.startsWith(origin) && !/^(data|about):/.test(each));
    assert.deepEqual(foreign, []);
    for (const page of [first, second]) await page.call("Page.navigate", { url: "about:blank" });
    await guest.stop();
    assert.equal(child.code, undefined, child.output);
  },
);
