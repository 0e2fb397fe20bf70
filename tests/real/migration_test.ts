import assert from "node:assert/strict";
import { join } from "node:path";
import { tempDir } from "../support/cleanup.ts";
import { type Emulator, Guest, type GuestOptions } from "../support/guest.ts";
import { MIB, newImage } from "../support/image.ts";
import { migrate } from "../support/migration.ts";
import { type OurBackend, startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";

/** Which QEMU, what the disk is told, how the guest moves, and what the trace of the disk that takes over shows. */
interface Case {
  readonly name: string;
  readonly emulator: Emulator;
  readonly props?: string;
  readonly postcopy?: boolean;
  readonly seen?: readonly RegExp[];
}

const cases: readonly Case[] = [
  { name: "precopy", emulator: "qemu" },
  { name: "precopy with packed rings", emulator: "qemu", props: ",packed=on" },
  { name: "postcopy", emulator: "qemu", postcopy: true },
  {
    name: "precopy with its requests in flight",
    emulator: "qemu11",
    props: ",inflight-migration=on",
    seen: [
      /^→ SET_PROTOCOL_FEATURES .*GET_VRING_BASE_INFLIGHT/m,
      // The buffer comes from the source: nobody has asked here for a new one.
      /^(?!.*→ GET_INFLIGHT_FD).*→ SET_INFLIGHT_FD .*\+1 fd/s,
    ],
  },
  {
    name: "precopy with packed rings and their requests in flight",
    emulator: "qemu11",
    props: ",packed=on,inflight-migration=on",
    seen: [/^(?!.*→ GET_INFLIGHT_FD).*→ SET_INFLIGHT_FD .*\+1 fd/s],
  },
  { name: "postcopy", emulator: "qemu11", postcopy: true, seen: [/^→ POSTCOPY_LISTEN/m, /^→ POSTCOPY_END/m] },
];

/** A guest with a disk of ours; two with the same differ in their socket only. */
function machine({ emulator, props = "" }: Case, socket: string, incoming = false): GuestOptions {
  return {
    emulator,
    modules: ["virtio_blk"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${socket}`],
      ...["-device", `vhost-user-blk-pci,chardev=c0,num-queues=1${props}`],
    ],
    ...incoming ? { incoming: "defer" } : {},
  };
}

/**
 * Writes numbered blocks for as long as /tmp/stop is not there, and notes each that the disk has acknowledged. The pages
 * of the guest's memory that the disk writes on reading back are what a wrong dirty log would lose.
 */
const WRITER = `
  mkdir -p /tmp/w
  ( i=0
    while [ ! -f /tmp/stop ]; do
      n=$((i % 512))
      { echo "block $i"; head -c 4096 /dev/urandom; } | head -c 4096 > /tmp/w/block
      dd if=/tmp/w/block of=/dev/vda bs=4096 seek=$n count=1 conv=notrunc oflag=direct 2>/dev/null || echo failed > /tmp/w/failed
      dd if=/dev/vda bs=4096 skip=$n count=1 iflag=direct 2>/dev/null > /tmp/w/back
      cmp -s /tmp/w/block /tmp/w/back || echo "block $i differs" >> /tmp/w/wrong
      md5sum < /tmp/w/block > /tmp/w/sum.$n
      i=$((i + 1)); echo $i > /tmp/w/count
    done; echo done > /tmp/w/done ) > /dev/null 2>&1 &
`;

/** Ends the writer and holds every block that it has written against the disk. */
const VERIFY = `
  touch /tmp/stop; n=500; until [ -f /tmp/w/done ]; do [ $((n -= 1)) -gt 0 ] || exit 1; usleep 20000; done
  echo 3 > /proc/sys/vm/drop_caches
  [ ! -f /tmp/w/failed ] && [ ! -f /tmp/w/wrong ] || exit 2
  for f in /tmp/w/sum.*; do
    [ "$(dd if=/dev/vda bs=4096 skip=\${f##*.} count=1 iflag=direct 2>/dev/null | md5sum)" = "$(cat $f)" ] || exit 3
  done
  cat /tmp/w/count
`;

for (const each of cases) {
  const { name, emulator, postcopy = false, seen = [] } = each;
  realTest(`a guest that writes moves to another ${emulator} and back: ${name}`, [emulator, "guest"], {
    timeout: 180_000,
  }, async (t) => {
    const folder = tempDir(t);
    const file = newImage(t, 16 * MIB);
    const backends: OurBackend[] = [];
    const backend = async (): Promise<OurBackend> => {
      const disk = await startDisk(t, { file, args: ["--trace"] });
      backends.push(disk);
      return disk;
    };
    let guest = await Guest.start(t, machine(each, (await backend()).socket));
    await guest.run(WRITER);
    await guest.waitFor("[ $(cat /tmp/w/count 2>/dev/null || echo 0) -gt 10 ]");
    for (const step of [1, 2]) {
      const before = Number(await guest.run("cat /tmp/w/count"));
      const target = await Guest.start(t, machine(each, (await backend()).socket, true));
      await migrate(guest, target, join(folder, `migration${step}`), postcopy);
      await guest.stop();
      guest = target;
      // It goes on there.
      await guest.waitFor(`[ $(cat /tmp/w/count) -gt ${before + 10} ]`, 20_000);
      for (const pattern of seen) assert.match(backends[step].child.output, pattern);
    }
    const written = Number(await guest.run(VERIFY, 60_000));
    assert.ok(written > 30, `${written} blocks were written and verified`);
    await guest.stop();
    for (const backend of backends) await backend.checkUnharmed();
  });
}
