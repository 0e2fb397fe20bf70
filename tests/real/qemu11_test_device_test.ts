import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import process from "node:process";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { defineDevice, type Device, type FrontEndLink } from "../../mod.ts";
import { featureNames, protocolFeatures, type ShmemMapping } from "../../src/protocol/mod.ts";
import { Balloon } from "../support/balloon.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { Guest } from "../support/guest.ts";
import { MIB } from "../support/image.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import type { Json } from "../support/qmp.ts";
import { restoreGuest } from "../support/snapshot.ts";

/** Plugs a device into a guest as QEMU's generic one. */
async function plugged(t: Scope, device: Device, props: Json): Promise<[InProcess, Guest]> {
  const served = await InProcess.serve(t, device);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-test-device-pci", served.socket, { props });
  return [served, guest];
}

/** A file in memory; the toolkit's descriptor of it, and one of Node's. */
function memory(scope: Scope, size: number): { fd: number; file: number } {
  const fd = memoryFile("qemu11", size);
  const file = openSync(`/proc/${process.pid}/fd/${fd}`, "r+");
  onEnd(scope, () => {
    closeSync(file);
    close(fd);
  });
  return { fd, file };
}

/** 32-bit words of a file. */
function words(file: number, position: number, count: number): number[] {
  const words = new Uint32Array(count);
  readSync(file, words, 0, words.byteLength, position);
  return [...words];
}

/** What the device can ask of QEMU. */
function linkOf(balloon: Balloon): FrontEndLink {
  assert.ok(balloon.link);
  return balloon.link;
}

/** Waits for the guest's driver. */
const DRIVEN = "[ -d /sys/bus/virtio/drivers/virtio_balloon/virtio0 ]";

/** Has the driver let go of the device, and take it again. */
const REBIND = "cd /sys/bus/virtio/drivers/virtio_balloon && echo virtio0 > unbind && echo virtio0 > bind";

const BALLOON = { "virtio-id": 5, "num_vqs": 2, "config_size": 8 };

realTest("QEMU's test device is an entropy device of ours", ["qemu11", "guest"], {}, async (t) => {
  let served = 0;
  const rng = defineDevice({
    type: 4,
    queues: [(chain) => chain.write((bytes) => bytes.fill(++served))],
  });
  const [device, guest] = await plugged(t, rng, { "virtio-id": 4, "num_vqs": 1 });
  await guest.waitFor("grep -q virtio_rng /sys/class/misc/hw_random/rng_available");
  const text = await guest.run(
    "cd /sys/class/misc/hw_random; grep -o 'virtio_rng.[0-9]*' rng_available >rng_current; dd if=/dev/hwrng bs=64 count=1 iflag=fullblock 2>/dev/null | xxd -p -c 64",
  );
  const [first] = Buffer.from(text, "hex");
  assert.ok(first > 0 && first <= served, `one of the ${served} that were filled: ${text}`);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest(
  "QEMU's test device is a balloon of ours: configuration space, two rings",
  ["qemu11", "guest"],
  {},
  async (t) => {
    const balloon = new Balloon();
    const [device, guest] = await plugged(t, balloon.device, BALLOON);
    await guest.waitFor(DRIVEN);
    for (const pages of [1000, 400, 0]) {
      balloon.want(pages);
      await device.until(`${pages} pages are in the balloon`, () => balloon.actual === pages, 3000);
      assert.equal(balloon.pages.size, pages);
      for (const page of balloon.pages) assert.ok(page < 65536, `page ${page} of 256 MiB`);
    }
    await guest.unplug();
    await guest.stop();
    await device.checkUnharmed();
  },
);

realTest(
  "a guest reads and writes a file of ours in a shared memory region",
  ["qemu11", "guest"],
  {},
  async (t) => {
    const balloon = new Balloon({ sharedMemory: new Map([[0, MIB]]) });
    const [device, guest] = await plugged(t, balloon.device, BALLOON);
    await guest.waitFor(DRIVEN);
    // QEMU asks before there is a driver, for the size of the PCI resource.
    assert.equal(device.all("GET_SHMEM_CONFIG").length, 1);
    const resource = await guest.run(
      "grep 0x.*fffff /sys/bus/virtio/devices/virtio0/../resource | while read a b c; do [ $((b - a)) = 1048575 ] && echo $a; done",
    );
    assert.match(resource, /^0x[0-9a-f]+$/);
    const peek = async (offset: number): Promise<number> =>
      Number(await guest.run(`devmem $((${resource} + ${offset})) 32`));
    const poke = (offset: number, value: number): Promise<string> =>
      guest.run(`devmem $((${resource} + ${offset})) 32 ${value}`);

    const { fd, file } = memory(t, 65536);
    writeSync(file, Uint32Array.from({ length: 16384 }, (_, i) => i * 0x10001 + 7));
    const { windows } = linkOf(balloon);
    const mapping: ShmemMapping = { shmid: 0, fdOffset: 4096n, shmOffset: 8192n, length: 8192n, flags: 1n };
    assert.equal(await peek(8192), 0);
    const before = device.all("ADD_MEM_REG").length;
    await windows.map(mapping, fd);
    // It is memory of the guest's now, and QEMU gives it to us like any other.
    await device.until("the memory is shared", () => device.all("ADD_MEM_REG").length === before + 1);
    for (const at of [0, 4, 4096, 8188]) assert.equal(await peek(8192 + at), words(file, 4096 + at, 1)[0]);
    await poke(8192 + 16, 0xdeadbeef);
    assert.deepEqual(words(file, 4096 + 16, 1), [0xdeadbeef]);
    writeSync(file, Uint32Array.of(0x12345678), 0, 4, 4096 + 20);
    assert.equal(await peek(8192 + 20), 0x12345678);

    // It stays where it is while the guest is paused.
    await guest.qmp("stop");
    await guest.qmp("cont");
    assert.equal(await peek(8192 + 20), 0x12345678);
    assert.equal(balloon.resets, 0);

    // Flag bit 0 is not there: QEMU 11.1 lets the guest write all the same.
    await windows.map({ ...mapping, shmOffset: 65536n, flags: 0n }, fd);
    await poke(65536, 0xcafe);
    assert.deepEqual(words(file, 4096, 1), [0xcafe]);
    await windows.unmap({ ...mapping, shmOffset: 65536n });

    await windows.unmap(mapping);
    for (const at of [0, 4, 4096, 8188]) assert.equal(await peek(8192 + at), 0);
    await device.until("the memory is taken back", () => device.all("REM_MEM_REG").length === 2);

    // What we refuse ourselves, QEMU refuses too.
    const { request } = linkOf(balloon);
    await windows.map(mapping, fd);
    for (
      const wrong of [mapping, { ...mapping, shmOffset: BigInt(MIB) }, {
        ...mapping,
        shmid: 1,
        shmOffset: 0n,
      }]
    ) await assert.rejects(request("SHMEM_MAP", wrong, [fd]), /SHMEM_MAP: the peer answered failure/);
    await assert.rejects(
      request("SHMEM_UNMAP", { ...mapping, shmOffset: 0n }),
      /SHMEM_UNMAP: the peer answered failure/,
    );
    await windows.unmap(mapping);
    await guest.unplug();
    await guest.stop();
    await device.checkUnharmed();
  },
);

realTest("QEMU keeps shared objects, and cannot ask for them", ["qemu11", "guest"], {}, async (t) => {
  const exported = memory(t, 4096);
  const balloon = new Balloon({ sharedObject: () => exported.fd });
  const [device, guest] = await plugged(t, balloon.device, BALLOON);
  await guest.waitFor(DRIVEN);
  const { request } = linkOf(balloon);
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  const refused = /the peer answered failure/;
  await assert.rejects(request("SHARED_OBJECT_LOOKUP", uuid), refused);
  await request("SHARED_OBJECT_ADD", uuid);
  await assert.rejects(request("SHARED_OBJECT_ADD", uuid), refused);
  // It comes to us for the file, and leaves out of which object.
  await assert.rejects(request("SHARED_OBJECT_LOOKUP", uuid), refused);
  assert.deepEqual(device.all("GET_SHARED_OBJECT").map(({ value }) => value), [undefined]);
  await request("SHARED_OBJECT_REMOVE", uuid);
  await assert.rejects(request("SHARED_OBJECT_REMOVE", uuid), refused);
  assert.equal(device.problems.splice(0).length, 1);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest("a guest rings a doorbell of ours", ["qemu11", "guest"], { timeout: 120_000 }, async (t) => {
  const balloon = new Balloon({ hostNotifiers: true });
  const device = await InProcess.serve(t, balloon.device);
  // One page per ring makes the PCI resource too large to be plugged in.
  const props = Object.entries({ ...BALLOON, "page-per-vq": "on" }).map(([key, value]) => `${key}=${value}`);
  const guest = await Guest.start(t, {
    emulator: "qemu11",
    modules: ["virtio_balloon"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${device.socket}`],
      ...["-device", `vhost-user-test-device-pci,chardev=c0,${props}`],
    ],
  });
  await guest.waitFor(DRIVEN);
  const { request } = linkOf(balloon);
  const { fd, file } = memory(t, 4096);
  const area = { index: 1, noDescriptor: false, size: 4096n, offset: 0n };
  await request("VRING_HOST_NOTIFIER_MSG", area, [fd]);
  balloon.want(10);
  await device.until("the ring with an eventfd works", () => balloon.actual === 10);
  balloon.want(0);
  // The driver writes the number of the ring, as it would to a device of silicon; QEMU hears nothing of it.
  await device.until("the doorbell is rung", () => words(file, 0, 1)[0] === 1);
  assert.equal(balloon.pages.size, 10);
  await request("VRING_HOST_NOTIFIER_MSG", { ...area, noDescriptor: true });
  // A ring that starts is looked at.
  await guest.qmp("stop");
  await guest.qmp("cont");
  await device.until("what was rung for is done", () => balloon.actual === 0);
  balloon.want(10);
  await device.until("eventfds work again", () => balloon.actual === 10);
  balloon.want(0);
  await device.until("eventfds work again", () => balloon.actual === 0);
  await guest.stop();
  await device.checkUnharmed();
});

realTest(
  "a pause is no reset; a driver's restart and the guest's are",
  ["qemu11", "guest"],
  { timeout: 120_000 },
  async (t) => {
    const balloon = new Balloon();
    const [device, guest] = await plugged(t, balloon.device, BALLOON);
    await guest.waitFor(DRIVEN);
    const works = async (pages: number): Promise<void> => {
      balloon.want(pages);
      await device.until(`${pages} pages are in the balloon`, () => balloon.actual === pages);
    };
    await works(10);
    for (let i = 0; i < 3; i++) {
      await guest.qmp("stop");
      await guest.qmp("cont");
      await works(20 + i);
    }
    assert.equal(balloon.resets, 0);
    balloon.want(0);
    await guest.run(REBIND);
    await works(5);
    assert.equal(balloon.resets, 1);
    balloon.want(0);
    await guest.reboot("button");
    await guest.waitFor(DRIVEN);
    await works(6);
    assert.equal(balloon.resets, 2);
    // QEMU has told none of it in words.
    assert.equal(device.all("RESET_DEVICE").length, 0);
    assert.deepEqual(device.all("SET_STATUS").map(({ value }) => value), [8n]);
    await guest.stop();
    await device.checkUnharmed();
  },
);

realTest(
  "QEMU takes all that a device can offer, what it cannot do included",
  ["qemu11", "guest"],
  {},
  async (t) => {
    const balloon = new Balloon({
      state: { save: () => new Uint8Array(0), load: () => {} },
      sharedMemory: new Map([[0, MIB]]),
      sharedObject: () => undefined,
      announce: () => {},
      setMtu: () => {},
      crypto: { create: () => 0n, close: () => {} },
      hostNotifiers: true,
    });
    const device = await InProcess.serve(t, balloon.device, { inBandNotifications: true });
    const guest = await restoreGuest(t, { emulator: "qemu11" });
    await guest.plug("vhost-user-test-device-pci", device.socket, { props: BALLOON });
    await guest.waitFor(DRIVEN);
    const names = (masks: readonly unknown[]): string[] =>
      featureNames(masks[0] as bigint, protocolFeatures).sort();
    const offered = names(device.all("GET_PROTOCOL_FEATURES").map(({ answer }) => answer));
    const taken = names(device.all("SET_PROTOCOL_FEATURES").map(({ value }) => value));
    assert.deepEqual(
      Object.keys(protocolFeatures).filter((name) => !offered.includes(name)),
      ["CROSS_ENDIAN", "XEN_MMAP"],
    );
    assert.deepEqual(offered.filter((name) => !taken.includes(name)), ["GET_VRING_BASE_INFLIGHT"]);
    // In-band notifications were taken as well, but there are eventfds, and those are used.
    const descriptors = ["SET_VRING_KICK", "SET_VRING_CALL"] as const;
    for (const each of descriptors) assert.ok(device.all(each).every(({ fds }) => fds === 1), each);
    balloon.want(10);
    await device.until("10 pages are in the balloon", () => balloon.actual === 10);
    await guest.unplug();
    await guest.stop();
    await device.checkUnharmed();
  },
);
