import assert from "node:assert/strict";
import { test } from "node:test";
import { close, fileStatus } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import type { FrontEndLink } from "../../mod.ts";
import { mask, protocolFeatures, type ShmemMapping } from "../../src/protocol/mod.ts";
import { type FrontEnd, Reply } from "../../src/frontend/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { LIMIT, Scene } from "../session/scene.ts";
import { echoDevice } from "./echo.ts";

const MIB = 1 << 20;
const FEATURES = mask(
  protocolFeatures.SHMEM,
  protocolFeatures.SHARED_OBJECT,
  protocolFeatures.BACKEND_SEND_FD,
  protocolFeatures.HOST_NOTIFIER,
);
const UUID = Uint8Array.from({ length: 16 }, (_, i) => i);

function file(scope: Scope, size = 4096): number {
  const fd = memoryFile("test", size);
  onEnd(scope, () => close(fd));
  return fd;
}

interface Stage {
  readonly scene: Scene;
  readonly frontEnd: FrontEnd;
  readonly link: FrontEndLink;
  /** What the front-end was told. */
  readonly said: string[];
  /** Inodes of the files that it was given. */
  readonly inodes: bigint[];
  readonly exported: number;
  readonly handed: number;
}

/** A device with a shared memory region and an exported object, and a front-end that keeps what it is told. */
async function open(scope: Scope, refusing = false): Promise<Stage> {
  const links: FrontEndLink[] = [];
  const exported = file(scope);
  const handed = file(scope);
  const scene = await Scene.open(
    scope,
    echoDevice({
      queues: undefined,
      connect: (link) => {
        links.push(link);
        return {
          queues: [(chain) => chain.write(chain.read())],
          sharedMemory: new Map([[1, MIB], [3, 2 * MIB]]),
          sharedObject: (uuid) => uuid[0] === 0 ? exported : undefined,
          hostNotifiers: true,
        };
      },
    }),
  );
  const said: string[] = [];
  const inodes: bigint[] = [];
  const note = (what: string): void => {
    if (refusing) throw new Error("refused");
    said.push(what);
  };
  const frontEnd = await scene.frontEnd({
    protocolFeatures: FEATURES,
    channel: {
      SHMEM_MAP: ({ shmid, shmOffset, length }, fds) => {
        inodes.push(fileStatus(fds.list()[0]).inode);
        note(`map ${shmid} ${shmOffset}+${length}`);
      },
      SHMEM_UNMAP: ({ shmid, shmOffset, length }) => note(`unmap ${shmid} ${shmOffset}+${length}`),
      SHARED_OBJECT_ADD: (uuid) => note(`add ${uuid[1]}`),
      SHARED_OBJECT_REMOVE: (uuid) => note(`remove ${uuid[1]}`),
      SHARED_OBJECT_LOOKUP: () => new Reply<void>(undefined, [handed]),
      VRING_HOST_NOTIFIER_MSG: ({ index, noDescriptor, size }, fds) =>
        note(`notifier ${index} ${noDescriptor ? "gone" : size} ${fds.length}`),
    },
  });
  return { scene, frontEnd, link: links[0], said, inodes, exported, handed };
}

async function run({ scene, frontEnd }: Stage): Promise<void> {
  const memory = scene.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.startQueue(0, memory, { size: 4 });
  await frontEnd.driverOk();
}

function mapping(shmOffset: number, length: number, shmid = 1): ShmemMapping {
  return { shmid, fdOffset: 0n, shmOffset: BigInt(shmOffset), length: BigInt(length), flags: 1n };
}

test("GET_SHMEM_CONFIG tells the regions", LIMIT, async (t) => {
  const { frontEnd } = await open(t);
  const { value } = await frontEnd.request("GET_SHMEM_CONFIG", undefined);
  assert.equal(value.numRegions, 2);
  assert.deepEqual(value.sizes.map(Number).filter((size) => size > 0), [MIB, 2 * MIB]);
  assert.equal(value.sizes[3], BigInt(2 * MIB));
});

test("a device shows files in its regions and takes them away again", LIMIT, async (t) => {
  const stage = await open(t);
  await run(stage);
  const { link: { windows }, said, inodes } = stage;
  const fd = file(t, MIB);
  await windows.map(mapping(0, 8192), fd);
  await windows.map(mapping(8192, 4096), fd);
  assert.deepEqual(inodes, [fileStatus(fd).inode, fileStatus(fd).inode]);
  await windows.unmap(mapping(0, 8192));
  await windows.map(mapping(4096, 4096), fd);
  assert.deepEqual(said, ["map 1 0+8192", "map 1 8192+4096", "unmap 1 0+8192", "map 1 4096+4096"]);
});

test(
  "ranges that overlap, exceed the region or are no whole pages are not even asked for",
  LIMIT,
  async (t) => {
    const stage = await open(t);
    await run(stage);
    const { link: { windows }, said } = stage;
    const fd = file(t, MIB);
    await windows.map(mapping(4096, 8192), fd);
    await assert.rejects(windows.map(mapping(8192, 4096), fd), /free range/);
    await assert.rejects(windows.map(mapping(0, 8192), fd), /free range/);
    await assert.rejects(windows.map(mapping(MIB - 4096, 8192), fd), /within the 1048576 bytes/);
    await assert.rejects(windows.map(mapping(0, 4096, 2), fd), /within the 0 bytes/);
    await assert.rejects(windows.map(mapping(0, 100), fd), /whole pages/);
    await assert.rejects(windows.unmap(mapping(4096, 4096)), /exactly an earlier one/);
    assert.equal(said.length, 1);
  },
);

test("a mapping that the front-end refuses is not there", LIMIT, async (t) => {
  const stage = await open(t, true);
  await run(stage);
  const fd = file(t, MIB);
  await assert.rejects(stage.link.windows.map(mapping(0, 4096), fd), /failure/);
  await assert.rejects(stage.link.windows.unmap(mapping(0, 4096)), /exactly an earlier one/);
});

test("mappings are gone after a reset", LIMIT, async (t) => {
  const stage = await open(t);
  await run(stage);
  const fd = file(t, MIB);
  await stage.link.windows.map(mapping(0, 4096), fd);
  await stage.frontEnd.request("RESET_DEVICE", undefined);
  await assert.rejects(stage.link.windows.unmap(mapping(0, 4096)), /exactly an earlier one/);
});

test("nothing is sent while no ring runs", LIMIT, async (t) => {
  const { link, said } = await open(t);
  await assert.rejects(link.windows.map(mapping(0, 4096), file(t)), /no ring is running/);
  await assert.rejects(link.request("SHARED_OBJECT_ADD", UUID), /no ring is running/);
  assert.deepEqual(said, []);
});

test("shared objects are announced, withdrawn, looked up and handed out", LIMIT, async (t) => {
  const stage = await open(t);
  await run(stage);
  const { link, frontEnd, said, handed, exported } = stage;
  await link.request("SHARED_OBJECT_ADD", UUID);
  await link.request("SHARED_OBJECT_REMOVE", UUID);
  assert.deepEqual(said, ["add 1", "remove 1"]);
  const found = await link.request("SHARED_OBJECT_LOOKUP", UUID);
  assert.equal(fileStatus(found.fds.list()[0]).inode, fileStatus(handed).inode);
  found.fds.close();

  const ours = await frontEnd.request("GET_SHARED_OBJECT", UUID);
  assert.equal(fileStatus(ours.fds.list()[0]).inode, fileStatus(exported).inode);
  ours.fds.close();
  const none = await frontEnd.request("GET_SHARED_OBJECT", new Uint8Array(16).fill(9));
  assert.equal(none.fds.length, 0);
});

test("who does not say which shared object gets none, and is served on", LIMIT, async (t) => {
  const { scene, frontEnd } = await open(t);
  const { fds } = await frontEnd.request("GET_SHARED_OBJECT", undefined);
  assert.equal(fds.length, 0);
  await scene.log.problem(/does not say which/);
  assert.equal((await frontEnd.request("GET_QUEUE_NUM", undefined)).value, 1n);
});

test("a doorbell page is given and taken away", LIMIT, async (t) => {
  const stage = await open(t);
  await run(stage);
  const area = { index: 0, noDescriptor: false, size: 4096n, offset: 0n };
  await stage.link.request("VRING_HOST_NOTIFIER_MSG", area, [file(t)]);
  await stage.link.request("VRING_HOST_NOTIFIER_MSG", { ...area, noDescriptor: true });
  assert.deepEqual(stage.said, ["notifier 0 4096 1", "notifier 0 gone 0"]);
});
