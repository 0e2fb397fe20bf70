import assert from "node:assert/strict";
import { test } from "node:test";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import type { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import type { MemoryRegion, VringAddress } from "../../src/protocol/mod.ts";
import { onEnd } from "../support/cleanup.ts";
import { oddDescriptors } from "../support/odd_descriptors.ts";
import { noteDescriptors } from "./descriptors.ts";
import { sectorSurvives } from "./requests.ts";
import { LIMIT, Scene, verify } from "./scene.ts";
import { stage } from "./stage.ts";

const GUEST = 0x8000_0000n;
const USER = 0x7f00_0000_0000n;

function region(values: Partial<MemoryRegion> = {}): MemoryRegion {
  return { guestAddress: GUEST, size: 4096n, userAddress: USER, mmapOffset: 0n, ...values };
}

const TOP = 0xffff_ffff_ffff_f000n;

/** Tables that cannot be, with files of 8192 bytes, and what is said about them. */
const tables: readonly [what: string, regions: readonly MemoryRegion[], said: RegExp][] = [
  ["overlap in guest addresses", [
    region(),
    region({ guestAddress: GUEST + 4095n, userAddress: USER + 8192n }),
  ], /regions overlap in guest addresses: 0x80000fff\+0x1000 and 0x80000000\+0x1000$/],
  [
    "overlap in user addresses",
    [region(), region({ guestAddress: GUEST + 8192n, userAddress: USER - 1n })],
    /regions overlap in user addresses: 0x7effffffffff\+0x1000 and 0x7f0000000000\+0x1000$/,
  ],
  ["are the same", [region(), region()], /regions overlap in guest addresses/],
  ["are empty", [region({ size: 0n })], /region size must be more than 0, got 0x0$/],
  [
    "wrap in guest addresses",
    [region({ guestAddress: TOP, size: 8192n })],
    /region guest address must be such that adding 8192 bytes stays within 64 bits, got 0xfffffffffffff000$/,
  ],
  [
    "wrap in user addresses",
    [region({ userAddress: TOP, size: 8192n })],
    /region user address must be such that/,
  ],
  ["wrap in the file", [region({ mmapOffset: TOP, size: 8192n })], /region mmap offset must be such that/],
  ["are as large as everything", [region({ size: 0xffff_ffff_ffff_ffffn })], /region .* must be such that/],
  [
    "are beyond any machine",
    [region({ guestAddress: 1n << 53n })],
    /guest address must be below 2\^53, got 0x20000000000000$/,
  ],
  [
    "exceed their file",
    [region({ size: 8193n })],
    /region 0x80000000\+0x2001 ends at byte 8193 of its file, which has 8192; touching the rest would end the process$/,
  ],
  ["exceed their file, after one that does not", [
    region(),
    region({ guestAddress: GUEST + 8192n, userAddress: USER + 8192n, size: 12288n }),
  ], /region 0x80002000\+0x3000 ends at byte 12288 of its file, which has 8192/],
  [
    "start behind their file",
    [region({ mmapOffset: 8192n })],
    /region 0x80000000\+0x1000 ends at byte 12288 of its file, which has 8192/,
  ],
];

/** Sends a table as one message, or region by region. */
async function share(
  frontEnd: FrontEnd,
  regions: readonly MemoryRegion[],
  fd: number,
  whole: boolean,
): Promise<void> {
  if (whole) {
    await frontEnd.request("SET_MEM_TABLE", regions, regions.map(() => fd));
  } else {
    for (const each of regions) await frontEnd.request("ADD_MEM_REG", each, [fd]);
  }
}

for (const [what, regions, said] of tables) {
  test(`regions that ${what} are refused; what was shared before is still there`, LIMIT, async (t) => {
    const fd = oddDescriptors(t)["a memory file"];
    const { scene, frontEnd, memory } = await stage(t);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    for (const [whole, name] of [[true, "SET_MEM_TABLE"], [false, "ADD_MEM_REG"]] as const) {
      const unchanged = noteDescriptors();
      await assert.rejects(
        share(frontEnd, regions, fd, whole),
        new RegExp(`${name}: the peer answered failure`),
      );
      await scene.log.problem(new RegExp(`^warning: .*${name}: ${said.source}`));
      await unchanged(whole ? 0 : regions.length - 1);
      assert.equal(await sectorSurvives(queue, memory, 1), true);
    }
  });
}

test("memory is in files: what does not say how large it is cannot be touched safely", LIMIT, async (t) => {
  const { scene, frontEnd } = await stage(t);
  const driver = await scene.driver();
  const zeros = openFile("/dev/zero", OpenFlag.READ_WRITE);
  onEnd(t, () => close(zeros));
  const { "a directory": folder, "an event": event } = oddDescriptors(t);
  for (const [fd, kind] of [[zeros, "character device"], [folder, "directory"], [event, "other"]] as const) {
    for (const mmapOffset of [0n, 0x1_0000n]) {
      // At an offset, /dev/zero is mapped as well, and touching it ends the process.
      await assert.rejects(frontEnd.request("ADD_MEM_REG", region({ mmapOffset }), [fd]));
      await scene.log.problem(new RegExp(`must lie in a file, got a descriptor of kind ${kind}$`));
    }
  }
  await verify(driver, 1);
});

test("a new region may not overlap one that is there, in either address space", LIMIT, async (t) => {
  const fd = oddDescriptors(t)["a memory file"];
  const { scene, frontEnd, memory } = await stage(t);
  const guestAddress = BigInt(memory.guestAddress + memory.byteLength - 4096);
  const userAddress = memory.userAddress + 4096n;
  for (const [place, space] of [[{ guestAddress }, "guest"], [{ userAddress }, "user"]] as const) {
    await assert.rejects(frontEnd.request("ADD_MEM_REG", region(place), [fd]));
    await scene.log.problem(new RegExp(`ADD_MEM_REG: regions overlap in ${space} addresses`));
  }
});

test("a region that is not there cannot be taken away", LIMIT, async (t) => {
  const { scene, frontEnd, memory } = await stage(t);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  const there = {
    guestAddress: BigInt(memory.guestAddress),
    size: BigInt(memory.byteLength),
    userAddress: memory.userAddress,
    mmapOffset: 0n,
  };
  for (const wrong of [{ guestAddress: 0n }, { size: 4096n }, { userAddress: 4096n }]) {
    await assert.rejects(frontEnd.request("REM_MEM_REG", { ...there, ...wrong }));
    await scene.log.problem(
      /REM_MEM_REG: no region with guest address 0x[0-9a-f]+, user address 0x[0-9a-f]+ and \d+ bytes$/,
    );
  }
  assert.equal(await sectorSurvives(queue, memory, 1), true);
  // As long as there is a region, it is watched over by a descriptor of our own.
  await frontEnd.shareMemory(scene.memory(4096, 0x2000_0000));
  // The offset does not count, and a descriptor with it is tolerated and closed.
  const unchanged = noteDescriptors();
  await frontEnd.request("REM_MEM_REG", { ...there, mmapOffset: 12345n }, [memory.fd]);
  await unchanged(-1);
  await scene.log.problem(/ring 0 is broken/);
});

test("no more regions than there are slots", LIMIT, async (t) => {
  const { scene, frontEnd } = await stage(t);
  const fd = oddDescriptors(t)["a memory file"];
  const slots = Number((await frontEnd.request("GET_MAX_MEM_SLOTS", undefined)).value);
  const place = (n: number): MemoryRegion =>
    region({ guestAddress: GUEST + BigInt(n) * 4096n, userAddress: USER + BigInt(n) * 4096n });
  // One is there already.
  for (let n = 1; n < slots; n++) await frontEnd.request("ADD_MEM_REG", place(n), [fd]);
  await assert.rejects(frontEnd.request("ADD_MEM_REG", place(slots), [fd]));
  await scene.log.problem(
    new RegExp(
      `ADD_MEM_REG: number of regions must be at most ${slots} \\(limit regions\\), got ${slots + 1}$`,
    ),
  );
  await frontEnd.request("REM_MEM_REG", place(1));
  await frontEnd.request("ADD_MEM_REG", place(slots), [fd]);
});

test("a table of 32 regions is taken, one of 33 is not", LIMIT, async (t) => {
  const { scene, frontEnd } = await stage(t);
  const fd = oddDescriptors(t)["a memory file"];
  const place = (n: number): MemoryRegion =>
    region({ guestAddress: GUEST + BigInt(n) * 8192n, userAddress: USER + BigInt(n) * 8192n });
  const all = Array.from({ length: 33 }, (_, n) => place(n));
  await frontEnd.request("SET_MEM_TABLE", all.slice(0, 32), all.slice(0, 32).map(() => fd));
  await assert.rejects(frontEnd.request("SET_MEM_TABLE", all, all.slice(0, 32).map(() => fd)));
  await scene.log.problem(/SET_MEM_TABLE: payload: expected 8 to 1032 bytes, got 1064$/);
});

for (
  const kind of [
    "a directory",
    "a path",
    "an event",
    "a pipe",
    "the write end of a pipe",
    "a connected socket",
    "a listening socket",
    "a null device",
    "an empty memory file",
  ] as const
) {
  test(`${kind} is no memory`, LIMIT, async (t) => {
    const fd = oddDescriptors(t)[kind];
    const { scene, frontEnd, memory } = await stage(t);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    for (const [whole, name] of [[true, "SET_MEM_TABLE"], [false, "ADD_MEM_REG"]] as const) {
      const unchanged = noteDescriptors();
      await assert.rejects(
        share(frontEnd, [region()], fd, whole),
        new RegExp(`${name}: the peer answered failure`),
      );
      await scene.log.problem(new RegExp(`^warning: .*${name}: `));
      await unchanged();
    }
    assert.equal(await sectorSurvives(queue, memory, 1), true);
  });
}

/** What SET_VRING_ADDR refuses, by the part that is moved to an address. */
function moved(memory: SharedMemory, part: string, to: bigint): VringAddress {
  const { userAddress } = memory;
  return {
    index: 0,
    flags: 0,
    descriptor: userAddress,
    used: userAddress + 4096n,
    available: userAddress + 8192n,
    log: 0n,
    [part]: to,
  };
}

for (
  const [part, name, length] of [
    ["descriptor", "descriptor table", 128],
    ["available", "available ring", 22],
    ["used", "used ring", 70],
  ] as const
) {
  test(`a ${name} outside of the memory is refused`, LIMIT, async (t) => {
    const { scene, frontEnd, memory } = await stage(t);
    await frontEnd.request("SET_VRING_NUM", { index: 0, num: 8 });
    const end = memory.userAddress + BigInt(memory.byteLength);
    const length16 = BigInt(length + 15 & ~15);
    for (const to of [0n, memory.userAddress - 16n, end - length16 + 16n, end, 0xffff_ffff_ffff_fff0n]) {
      await assert.rejects(frontEnd.request("SET_VRING_ADDR", moved(memory, part, to)));
      const at = `0x${to.toString(16)}\\+\\d+`;
      await scene.log.problem(
        new RegExp(`SET_VRING_ADDR: ring 0: ${name} ${at} is not within one region of the memory table$`),
      );
    }
    await frontEnd.request("SET_VRING_ADDR", moved(memory, part, end - length16));
  });
}

test("a ring may not lie across two regions, even if they touch", LIMIT, async (t) => {
  const { scene, frontEnd } = await stage(t);
  const [low, high] = [scene.memory(4096, 0x4000_0000), scene.memory(4096, 0x4000_1000)];
  const base = USER;
  for (const [n, each] of [low, high].entries()) {
    const place = { guestAddress: BigInt(each.guestAddress), userAddress: base + BigInt(4096 * n) };
    await frontEnd.request("ADD_MEM_REG", region(place), [each.fd]);
  }
  await frontEnd.request("SET_VRING_NUM", { index: 0, num: 8 });
  const address = {
    index: 0,
    flags: 0,
    descriptor: base,
    used: base + 256n,
    available: base + 512n,
    log: 0n,
  };
  await frontEnd.request("SET_VRING_ADDR", address);
  await assert.rejects(frontEnd.request("SET_VRING_ADDR", { ...address, descriptor: base + 4096n - 64n }));
  await scene.log.problem(
    /SET_VRING_ADDR: ring 0: descriptor table 0x[0-9a-f]+\+128 is not within one region/,
  );
});

test("an offset in the file that misaligns the ring is refused", LIMIT, async (t) => {
  const { scene, frontEnd } = await stage(t);
  const file = scene.memory(8192);
  await frontEnd.request("ADD_MEM_REG", region({ mmapOffset: 1n }), [file.fd]);
  await frontEnd.request("SET_VRING_NUM", { index: 0, num: 8 });
  const address = {
    index: 0,
    flags: 0,
    descriptor: USER,
    used: USER + 256n,
    available: USER + 512n,
    log: 0n,
  };
  await assert.rejects(frontEnd.request("SET_VRING_ADDR", address));
  await scene.log.problem(/SET_VRING_ADDR: ring 0: descriptor table is not aligned in its file$/);
});

// What QEMU 11 does without share=on; QEMU 10 shares a copy, which nobody can tell from memory.
test("a ring without any guest memory says what the front-end is missing", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const frontEnd = await scene.frontEnd();
  await assert.rejects(frontEnd.startQueue(0, scene.memory()), /SET_VRING_ENABLE: the peer answered failure/);
  await scene.log.problem(/SET_VRING_ENABLE: ring 0: the front-end has shared no guest memory .*share=on/);
});
