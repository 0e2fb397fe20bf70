import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { join } from "node:path";
import process from "node:process";
import { ConsoleDevice, type PortOptions, ScriptEnd } from "../../src/devices/console/mod.ts";
import { bytesOf } from "../session/scene.ts";
import { Page } from "../support/browser.ts";
import { type Scope, tempDir } from "../support/cleanup.ts";
import type { Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { OurBackend, root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

/** Properties of QEMU's generic device for a console. */
const propsOf = (ports: number) => ({
  "virtio-id": 3,
  "num_vqs": 2 + 2 * ports,
  "vq_size": 64,
  "config_size": 12,
});

/** Starts a guest with a console in this process. */
async function plugged(t: Scope, ports: readonly PortOptions[]): Promise<[InProcess, Guest, ConsoleDevice]> {
  const device = new ConsoleDevice({ ports });
  const served = await InProcess.serve(t, device);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-test-device-pci", served.socket, { props: propsOf(ports.length) });
  return [served, guest, device];
}

/** An end that keeps what it gets. */
class Keeper extends ScriptEnd {
  readonly parts: Buffer[];

  constructor() {
    const parts: Buffer[] = [];
    super((bytes) => void parts.push(Buffer.from(bytes)));
    this.parts = parts;
  }

  get text(): string {
    return Buffer.concat(this.parts).toString();
  }
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Shell: whoever comes to a terminal of the guest's has to log in, as `root` with `secret`. */
const loginAt = (terminal: string) =>
  `echo "root:$(mkpasswd secret):0:0:root:/:/bin/sh" >/etc/passwd; echo root:x:0: >/etc/group;
  setsid getty -L 115200 ${terminal} linux </dev/null >/dev/null 2>&1 &`;

realTest("a guest has terminals with sizes and channels with names", ["qemu11", "guest"], {}, async (t) => {
  const [first, second, channel] = [new Keeper(), new Keeper(), new Keeper()];
  const [served, guest] = await plugged(t, [
    { end: first, console: true },
    { end: second, console: true, name: "admin" },
    { end: channel, name: "org.example.agent" },
  ]);
  await guest.waitFor("[ -c /dev/hvc1 ] && grep -q agent /sys/class/virtio-ports/*/name");
  assert.equal(await guest.run("cat /sys/class/virtio-ports/*/name"), "admin\norg.example.agent");

  second.resize(132, 43);
  await guest.waitFor(`[ "$(stty -F /dev/hvc1 size)" = "43 132" ]`);
  second.resize(80, 24);
  await guest.waitFor(`[ "$(stty -F /dev/hvc1 size)" = "24 80" ]`);

  // Somebody logs in at the second terminal, not without the password.
  await guest.run(loginAt("hvc1"));
  let seen = 0;
  const shown = async (text: string): Promise<void> => {
    await served.until(text, () => second.text.indexOf(text, seen) >= 0);
    seen = second.text.indexOf(text, seen) + text.length;
  };
  for (const [password, then] of [["wrong", "Login incorrect"], ["secret", "# "]]) {
    await shown("login: ");
    await second.send("root\n");
    await shown("Password: ");
    await second.send(`${password}\n`);
    await shown(then);
  }
  await second.send("echo $((6 * 7)) and $(tty)\n");
  await served.until("the answer", () => second.text.includes("42 and /dev/hvc1"));
  await guest.run("echo from the first >/dev/hvc0");
  await served.until("the other terminal", () => first.text.includes("from the first"));
  assert.ok(!second.text.includes("from the first"));

  // Much through the channel, both ways; the guest does not read for a while.
  const data = bytesOf(7, 1 << 20);
  const port = "/dev/virtio-ports/org.example.agent";
  await guest.run(
    `ln -s ../$(basename $(dirname $(grep -l agent /sys/class/virtio-ports/*/name))) ${port} 2>/dev/null;
    mkdir -p /dev/virtio-ports; [ -e ${port} ] || ln -s ../$(basename $(dirname $(grep -l agent /sys/class/virtio-ports/*/name))) ${port}`,
  );
  const sent = channel.send(data);
  assert.equal(channel.unsent, data.length, "it is not open");
  const sum = await guest.run(
    `exec 3<>${port}; sleep 0.3; dd bs=4096 count=256 iflag=fullblock <&3 2>/dev/null >/tmp/got; sha256sum </tmp/got | cut -c1-64; cat /tmp/got >&3`,
    60_000,
  );
  await sent;
  assert.equal(sum, sha256(data));
  await served.until("it is back", () => Buffer.concat(channel.parts).length >= data.length);
  assert.equal(sha256(Buffer.concat(channel.parts)), sha256(data));

  // Nobody at the end: who writes waits.
  channel.connect(false);
  await guest.run(`! timeout 1 sh -c 'echo x >${port}'`);
  channel.connect();
  await guest.run(`timeout 10 sh -c 'echo y >${port}'`);
  await served.until("it came", () => channel.text.endsWith("y\n"));

  // A pause changes nothing.
  await guest.qmp("stop");
  const later = second.send("echo still $((7 * 7))\n");
  await guest.qmp("cont");
  await later;
  await served.until("the answer", () => second.text.includes("still 49"));
  await guest.stop();
  await served.checkUnharmed();
});

realTest(
  "a terminal in the browser: keys, colours, sizes, a flood, another window",
  ["qemu11", "guest", "chromium"],
  { timeout: 120_000 },
  async (t) => {
    const socket = join(tempDir(t), "console.sock");
    const child = startDeno(t, [
      ...["--allow-net=127.0.0.1:0", "--allow-env=WS_NO_BUFFER_UTIL"],
      ...[join(root, "src/cli/mod.ts"), "console"],
      ...[`--socket-path=${socket}`, "--consoles=null,web=web:127.0.0.1:0"],
    ]);
    const line = await child.waitLine(/info: console: web is http/, 30_000);
    const url = line.slice(line.indexOf("http"));
    await child.waitLine(/^vhost-user console: .* on /);
    const backend = new OurBackend(t, child, socket);
    const guest = await restoreGuest(t, { emulator: "qemu11" });
    await guest.plug("vhost-user-test-device-pci", socket, { props: propsOf(2) });
    await guest.waitFor("[ -c /dev/hvc1 ]");
    await guest.run(loginAt("hvc1"));

    // Without its secret the page is not there.
    const { origin } = new URL(url);
    assert.equal((await fetch(`${origin}/`)).status, 404);
    assert.equal((await fetch(`${origin}/${"0".repeat(32)}/`)).status, 404);

    const page = await Page.open(t, url);
    const shown = (text: string) =>
      `Array.from({ length: terminal.buffer.active.length }, (_, i) => terminal.buffer.active.getLine(i)?.translateToString(true)).join("\\n").includes(${
        JSON.stringify(text)
      })`;
    await page.until("typeof terminal === 'object'");
    await page.until(shown("login:"));
    await page.type("root\n");
    await page.until(shown("Password:"));
    await page.type("secret\n");
    await page.until(shown("# "));
    await page.type("echo $((6 * 7)) times\n");
    await page.until(shown("42 times"));
    assert.equal(await page.value("document.title"), "web");

    // The page takes a moment to fit the terminal to the window.
    let last = "";
    for (const [width, height] of [[800, 400], [1200, 800]]) {
      await page.resize(width, height);
      let sizes: unknown[];
      const deadline = Date.now() + 20_000;
      do {
        assert.ok(Date.now() < deadline, `the terminal in the guest stays at ${last}`);
        sizes = [
          await page.value("terminal.rows + ' ' + terminal.cols"),
          await guest.run("stty -F /dev/hvc1 size"),
        ];
      } while (sizes[0] !== sizes[1] || sizes[0] === last);
      last = String(sizes[0]);
    }

    // Linux writes 16 bytes at a time to a terminal, and waits for each.
    await page.type("seq 1 2000; echo done-$((1 + 1))\n");
    await page.until(shown("done-2"));
    await page.until(shown("1999\n2000"));
    await page.type("printf '\\033[1;32mgreen\\033[0m %s\\n' text\n");
    await page.until(shown("green text"));
    if (process.env.VHOST_PICTURE !== undefined) await page.picture(process.env.VHOST_PICTURE);

    // Everything came from here.
    const foreign = page.requests.filter((each) => !each.startsWith(origin) && !/^(data|about):/.test(each));
    assert.deepEqual(foreign, []);
    assert.deepEqual(page.errors, []);

    // Another window takes over, and shows what was there; a page of somebody else is not let in.
    const stranger = new WebSocket(url.replace(/#.*/, "socket").replace("http", "ws"));
    await new Promise((resolve) => stranger.onopen = resolve);
    await page.until("document.getElementById('state').textContent === 'opened in another window'");
    stranger.close();
    await guest.stop();
    await page.call("Page.navigate", { url: "about:blank" });
    await backend.checkUnharmed();
  },
);
