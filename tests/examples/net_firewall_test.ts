import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createServer } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { onEnd, tempDir } from "../support/cleanup.ts";
import type { Guest } from "../support/guest.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

// examples/net_firewall.ts, with guests that try what they may and what they may not.

const EXAMPLE = join(root, "examples/net_firewall.ts");
const BYTES = 300_000;

/** A server on this machine that says so many bytes to whoever calls. */
function server(t: TestContext): Promise<number> {
  return new Promise((resolve) => {
    const listening = createServer((socket) => {
      socket.on("error", () => {});
      socket.end(Buffer.alloc(BYTES, "x"));
    }).listen(0, "127.0.0.1", () => {
      const address = listening.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
    onEnd(t, () => void listening.close());
  });
}

/** A guest with its address and name server. */
async function guestAt(t: TestContext, socket: string): Promise<Guest> {
  const guest = await restoreGuest(t);
  await guest.plug("virtio-net-pci", socket, { props: { mac: "52:54:00:00:00:01", romfile: "" } });
  await guest.waitFor("[ -e /sys/class/net/eth0 ]");
  await guest.run(
    "ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2; " +
      "echo nameserver 10.0.2.3 >/etc/resolv.conf",
  );
  return guest;
}

realTest(
  "each guest reaches what its rules allow, by name and port",
  ["qemu", "guest"],
  { timeout: 90_000 },
  async (t) => {
    const port = await server(t);
    const folder = tempDir(t);
    const child = startDeno(t, [
      ...[`--allow-net=127.0.0.1`, EXAMPLE, `--folder=${folder}`, "--stats=0"],
      ...["--rule=* deny *:25", `--rule=one allow shop.test:80=127.0.0.1:${port}`],
      ...[`--rule=one allow shop.test:25=127.0.0.1:${port}`, `--rule=two allow *.two.test=127.0.0.1:${port}`],
      "--rule=two deny no.two.test",
      // Of what is not named alone, nothing in private networks is reached.
      "--rule=two allow 10.0.0.0/8",
    ]);
    const [, stats] = /(http:\S+)/.exec(await child.waitLine(/^counts at /, 30_000)) ?? [];
    const [one, two] = await Promise.all(
      ["one", "two"].map((name) => guestAt(t, join(folder, `firewall-${name}.sock`))),
    );
    const got = (guest: Guest, host: string, port: number): Promise<string> =>
      guest.run(`nc ${host} ${port} </dev/null 2>&1 | wc -c`, 30_000);
    const says = (guest: Guest, host: string, port: number): Promise<string> =>
      guest.run(`nc ${host} ${port} </dev/null 2>&1 || true`, 30_000);
    assert.equal(await got(one, "shop.test", 80), String(BYTES));
    assert.match(await says(one, "shop.test", 81), /refused/);
    assert.match(await says(one, "shop.test", 25), /refused/);
    assert.match(await says(one, "a.two.test", 80), /bad address/);
    assert.match(await says(one, "192.0.2.7", 80), /refused/);
    assert.equal(await got(two, "a.two.test", 443), String(BYTES));
    assert.match(await says(two, "shop.test", 80), /bad address/);
    assert.match(await says(two, "10.1.2.3", 80), /refused/);

    for (
      const line of [
        /Z one: allowed shop\.test:80 by 'one allow shop\.test:80=127\.0\.0\.1:\d+'$/m,
        /Z one: refused shop\.test:81 by no rule$/m,
        /Z one: refused shop\.test:25 by '\* deny \*:25'$/m,
        /Z one: no name a\.two\.test by no rule$/m,
        /Z one: refused 192\.0\.2\.7:80 by no rule$/m,
        /Z two: allowed a\.two\.test:443 by 'two allow/m,
        /^two: refused 10\.1\.2\.3:80: .*which only a rule for it alone opens$/m,
      ]
    ) await child.waitLine(line, 30_000);
    const counts = await (await fetch(stats)).json();
    assert.deepEqual(
      [counts.one.connections, counts.one.refused, counts.one.bytesReceived, counts.two.bytesReceived],
      [1, 3, BYTES, BYTES],
    );
    assert.deepEqual(counts.one.rules.map(({ calls }: { calls: number }) => calls), [1, 1, 0]);
    await Promise.all([one.stop(), two.stop()]);
    assert.equal(child.code, undefined, child.output);
  },
);

test("rules that make no sense are refused", { timeout: 60_000 }, async (t) => {
  for (
    const [rule, expected] of [
      ["one permit a.test", /a rule must be GUEST allow\|deny WHERE, got 'one permit a\.test'/],
      ["one allow a..test", /a rule must be NAME/],
      ["* allow a.test", /no rule names a guest/],
      ["../x allow a.test", /a rule must be GUEST/],
    ] as const
  ) {
    const child = startDeno(t, [EXAMPLE, `--rule=${rule}`, `--folder=${tempDir(t)}`]);
    assert.equal(await child.waitEnd(30_000), 2);
    assert.match(child.output, expected);
  }
});
