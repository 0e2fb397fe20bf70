import assert from "node:assert/strict";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import { OurBackend, startCommand } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Uml } from "../support/uml.ts";

// User-Mode Linux asks the device for its address, where QEMU has one of its own.

realTest("a network card in User-Mode Linux", ["uml", "uml-guest"], {}, async (t) => {
  const socket = join(tempDir(t), "net.sock");
  const child = startCommand(t, [
    ...["net", `--socket-path=${socket}`, "--network=user", "--mac=02:00:00:12:34:56", "--mtu=1400"],
  ]);
  await child.waitLine(/^vhost-user net: .* on /);
  const card = new OurBackend(t, child, socket);
  const uml = await Uml.start(t, { modules: ["virtio_net"], devices: [{ socket, id: 1 }] });
  assert.equal(
    await uml.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu"),
    "02:00:00:12:34:56\n1400",
  );
  const lease = await uml.run("ip link set eth0 up; udhcpc -i eth0 -n -q -f -s /bin/true 2>&1");
  assert.match(lease, /lease of 10\.0\.2\.15 obtained/);
  await uml.run("ip addr add 10.0.2.15/24 dev eth0");
  assert.match(await uml.run("ping -c 3 -i 0.2 -W 5 -s 1300 10.0.2.2"), /3 packets received/);
  await uml.shutDown();
  await card.checkUnharmed();
});
