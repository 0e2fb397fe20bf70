import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { eventfd, signal } from "../../ffi/eventfd.ts";
import { SharedMemory } from "../../src/frontend/mod.ts";
import { SplitDriverRing } from "../../src/frontend/split_driver_ring.ts";
import { onEnd } from "../support/cleanup.ts";
import { RawPeer } from "./raw_peer.ts";
import { bytesOf, eventually, LIMIT, Scene } from "./scene.ts";
import { concat, number32, u32, u64 } from "./wire.ts";

// Monitors that cannot be run here, for want of KVM: what their sources say, in the order in which they say it, up to a read of
// the disk. It shows that nothing in that is refused; it does not show that they work. See docs/attach.md.

const RING = 64;

/** The steps of a monitor's start, by the names of messages. `!` is one that asks for an acknowledgement. */
interface Monitor {
  readonly name: string;
  readonly features: readonly number[];
  readonly protocol: readonly number[];
  readonly steps: string;
}

const MONITORS: readonly Monitor[] = [
  {
    // src/vmm/src/devices/virtio/vhost_user.rs, block/vhost_user/device.rs (August 2026).
    name: "Firecracker",
    features: [32, 29, 30, 5, 9],
    protocol: [9],
    steps:
      "SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_CONFIG SET_FEATURES SET_MEM_TABLE " +
      "SET_VRING_NUM SET_VRING_ADDR SET_VRING_BASE SET_VRING_CALL SET_VRING_KICK SET_VRING_ENABLE",
  },
  {
    // devices/src/virtio/vhost_user_frontend/mod.rs (August 2026). REPLY_ACK is taken, and no acknowledgement is asked for.
    name: "crosvm",
    features: [32, 29, 28, 30, 6, 9, 12, 13, 14],
    protocol: [0, 3, 9],
    steps:
      "SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM GET_CONFIG SET_FEATURES " +
      "SET_MEM_TABLE SET_VRING_NUM SET_VRING_ADDR SET_VRING_BASE SET_VRING_CALL SET_VRING_KICK SET_VRING_ENABLE",
  },
  {
    // virtio-devices/src/vhost_user/vu_common_ctrl.rs, blk.rs (August 2026).
    name: "cloud-hypervisor",
    features: [32, 29, 28, 30, 1, 2, 4, 5, 6, 9, 10, 11, 13, 14],
    protocol: [0, 1, 3, 9, 12, 15],
    steps:
      "SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM GET_CONFIG SET_FEATURES! " +
      "SET_MEM_TABLE! SET_VRING_NUM! SET_VRING_ADDR! SET_VRING_BASE! SET_VRING_CALL! SET_VRING_KICK! SET_VRING_ENABLE!",
  },
  {
    // src/devices/src/virtio/vhost_user/device.rs (June 2026): the owner comes late, and memory before the features.
    name: "libkrun",
    features: [32, 29, 28, 30, 9],
    protocol: [0, 9],
    steps:
      "GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_OWNER SET_MEM_TABLE SET_FEATURES " +
      "SET_VRING_NUM SET_VRING_BASE SET_VRING_ADDR SET_VRING_KICK SET_VRING_CALL SET_VRING_ENABLE",
  },
];

const bits = (numbers: readonly number[]): bigint =>
  numbers.reduce((sum, bit) => sum | 1n << BigInt(bit), 0n);

/** The first sector of the disk, read as the monitor's guest would. */
async function readSector(t: TestContext, monitor: Monitor, path: string): Promise<Uint8Array> {
  const peer = RawPeer.connect(path);
  onEnd(t, () => peer.close());
  const memory = new SharedMemory(1 << 20, 0x1000_0000);
  onEnd(t, () => memory.close());
  const [kick, call] = [eventfd(), eventfd()];
  onEnd(t, () => [kick, call].forEach(close));
  const features = bits(monitor.features);
  const ring = new SplitDriverRing(memory, { size: RING, eventIdx: monitor.features.includes(29) });
  const region = u64(memory.guestAddress, memory.byteLength, memory.userAddress, 0);
  const [descriptor, used, available] = [ring.descriptor, ring.used, ring.available].map((each) =>
    each.userAddress
  );
  let offered = 0n;
  const payloads: Readonly<Record<string, () => { bytes?: Uint8Array; fds?: number[] }>> = {
    SET_PROTOCOL_FEATURES: () => ({ bytes: u64(bits(monitor.protocol)) }),
    SET_FEATURES: () => ({ bytes: u64(features & offered) }),
    // Room for all fields that they know, and a flag which says that the driver writes.
    GET_CONFIG: () => ({ bytes: concat(u32(0, 60, 1), new Uint8Array(60)) }),
    SET_MEM_TABLE: () => ({ bytes: concat(u32(1, 0), region), fds: [memory.fd] }),
    SET_VRING_NUM: () => ({ bytes: u32(0, RING) }),
    SET_VRING_BASE: () => ({ bytes: u32(0, 0) }),
    SET_VRING_ADDR: () => ({ bytes: concat(u32(0, 0), u64(descriptor, used, available, 0)) }),
    SET_VRING_CALL: () => ({ bytes: u64(0), fds: [call] }),
    SET_VRING_KICK: () => ({ bytes: u64(0), fds: [kick] }),
    SET_VRING_ENABLE: () => ({ bytes: u32(0, 1) }),
  };
  for (const step of monitor.steps.split(" ")) {
    const name = step.replace("!", "") as Parameters<RawPeer["say"]>[0] & string;
    const { bytes, fds } = payloads[name]?.() ?? {};
    if (step.endsWith("!")) assert.equal(await peer.ack(name, bytes, fds), 0n, step);
    else if (!name.startsWith("GET_")) peer.say(name, bytes, fds);
    else {
      const answer = await peer.ask(name, bytes);
      if (name === "GET_FEATURES") {
        offered = new DataView(answer.buffer, answer.byteOffset).getBigUint64(0, true);
      }
      if (name === "GET_CONFIG") {
        assert.deepEqual([answer.length, number32(answer, 4)], [72, 60]);
        assert.equal(number32(answer, 12), 2048, "sectors");
      }
    }
  }
  const header = memory.allocate(16);
  const data = memory.allocate(512);
  const status = memory.allocate(1);
  status.bytes[0] = 0xff;
  const piece = ({ guestAddress }: { guestAddress: number }, length: number) => ({ guestAddress, length });
  ring.add([piece(header, 16)], [piece(data, 512), piece(status, 1)]);
  ring.publish();
  signal(kick);
  await eventually(`${monitor.name}'s read`, () => ring.take() !== null);
  assert.equal(status.bytes[0], 0);
  return data.bytes.slice();
}

for (const monitor of MONITORS) {
  test(`what ${monitor.name} says, by its sources, is understood`, LIMIT, async (t) => {
    const scene = await Scene.disk(t);
    const sector = bytesOf(7, 512);
    const driver = await scene.driver();
    await driver.write(0, sector);
    assert.deepEqual(await readSector(t, monitor, scene.path), sector);
    assert.deepEqual(scene.log.problems, []);
  });
}
