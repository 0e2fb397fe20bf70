import { Balloon } from "../support/balloon.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { writeFileSync } from "node:fs";
import process from "node:process";
realTest("shmem", ["qemu11", "guest"], {}, async (t) => {
  const balloon = new Balloon({
    sharedMemory: new Map([[0, 1 << 20]]),
    sharedObject: (u) => {
      console.log("asked", u);
      return undefined;
    },
    hostNotifiers: true,
  });
  const device = await InProcess.serve(t, balloon.device);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-test-device-pci", device.socket, {
    props: { "virtio-id": 5, "num_vqs": 2, "config_size": 8 },
  });
  await guest.waitFor("[ -d /sys/bus/virtio/drivers/virtio_balloon/virtio* ]");
  console.log(device.asked.map((a) => a.name).join(" "));
  console.log(
    await guest.run(
      "cd /sys/bus/virtio/drivers/virtio_balloon/virtio*/..; pwd; cat resource; ls; which devmem",
    ),
  );
  const fd = memoryFile("x", 65536);
  const b = new Uint8Array(65536);
  for (let i = 0; i < b.length; i++) b[i] = (i * 7 + (i >> 8)) & 255;
  writeFileSync(`/proc/${process.pid}/fd/${fd}`, b);
  const try_ = async (n: string, f: () => Promise<unknown>) => {
    try {
      console.log(n, "ok", await f());
    } catch (e) {
      console.log(n, e.message);
    }
  };
  const w = balloon.link!.windows;
  const m = { shmid: 0, fdOffset: 4096n, shmOffset: 8192n, length: 8192n, flags: 1n };
  await try_("map", () => w.map(m, fd));
  await try_("read", () => guest.run("for i in 0 4 4096 8188; do devmem $((0x100000000+8192+i)) 32; done"));
  console.log([0, 4, 4096, 8188].map((o) => new DataView(b.buffer).getUint32(4096 + o, true).toString(16)));
  await try_(
    "write",
    () => guest.run("devmem $((0x100000000+8192+16)) 32 0xdeadbeef; devmem $((0x100000000+8192+16)) 32"),
  );
  const r = new Uint8Array(await Deno.readFile(`/proc/${process.pid}/fd/${fd}`));
  console.log(r.subarray(4096 + 16, 4096 + 20));
  await try_("readonly map", () => w.map({ ...m, shmOffset: 65536n, flags: 0n }, fd));
  await try_(
    "readonly write",
    () =>
      guest.run(
        "devmem $((0x100000000+65536)) 32; devmem $((0x100000000+65536)) 32 0x11223344;  devmem $((0x100000000+65536)) 32",
      ),
  );
  await try_("unmap", () => w.unmap(m));
  await try_("read", () => guest.run("for i in 0 4 4096 8188; do devmem $((0x100000000+8192+i)) 32; done"));
  await try_("map overlap raw", () => balloon.link!.request("SHMEM_MAP", { ...m, shmOffset: 65536n }, [fd]));
  await try_(
    "map beyond raw",
    () => balloon.link!.request("SHMEM_MAP", { ...m, shmOffset: 1n << 20n }, [fd]),
  );
  await try_("map wrong id raw", () => balloon.link!.request("SHMEM_MAP", { ...m, shmid: 1 }, [fd]));
  await try_("unmap not there raw", () => balloon.link!.request("SHMEM_UNMAP", { ...m, shmOffset: 0n }, []));
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  await try_(
    "lookup none",
    async () => (await balloon.link!.request("SHARED_OBJECT_LOOKUP", uuid)).fds.length,
  );
  await try_("add", () => balloon.link!.request("SHARED_OBJECT_ADD", uuid));
  await try_("add again", () => balloon.link!.request("SHARED_OBJECT_ADD", uuid));
  await try_("lookup", async () => (await balloon.link!.request("SHARED_OBJECT_LOOKUP", uuid)).fds.length);
  await try_("remove", () => balloon.link!.request("SHARED_OBJECT_REMOVE", uuid));
  await try_("remove again", () => balloon.link!.request("SHARED_OBJECT_REMOVE", uuid));
  await try_(
    "notifier",
    () =>
      balloon.link!.request("VRING_HOST_NOTIFIER_MSG", {
        index: 0,
        noDescriptor: false,
        size: 4096n,
        offset: 0n,
      }, [fd]),
  );
  await try_(
    "notifier gone",
    () =>
      balloon.link!.request("VRING_HOST_NOTIFIER_MSG", {
        index: 0,
        noDescriptor: true,
        size: 4096n,
        offset: 0n,
      }, []),
  );
  await try_("stop", () => guest.qmp("stop"));
  await try_("cont", () => guest.qmp("cont"));
  await try_(
    "remap after pause raw",
    () => balloon.link!.request("SHMEM_MAP", { ...m, shmOffset: 65536n }, [fd]),
  );
  await try_("read", () => guest.run("for i in 0 4 4096 8188; do devmem $((0x100000000+65536+i)) 32; done"));
  console.log(device.asked.map((a) => a.name).join(" "), device.problems);
  await guest.unplug();
  await guest.stop();
  console.log(guest.qemu.output);
});
