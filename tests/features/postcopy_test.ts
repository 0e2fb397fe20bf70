import assert from "node:assert/strict";
import { test } from "node:test";
import { close, isOpen } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { nextFault, resolveFault } from "../../ffi/userfaultfd.ts";
import { blkFeatures, BlkRequest } from "../../src/devices/blk/mod.ts";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { startDisk } from "../support/our_backend.ts";

const PAGE = 4096;
const LIMIT = { timeout: 30_000 };

interface Arrival {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  /** Guest addresses of pages that were touched while they were missing. */
  readonly faults: number[];
  /** The back-end's userfaultfd. */
  readonly userfaultfd: number;
}

/**
 * A front-end at the destination of a postcopy migration, in front of a disk in a process of its own: whoever touches a
 * missing page stops, so it cannot be this process. Pages arrive when they are asked for, filled with the low byte of
 * their number.
 */
async function arrive(scope: Scope, slots: boolean): Promise<Arrival> {
  const disk = await startDisk(scope, { args: ["--storage=mem:1M"] });
  const frontEnd = await FrontEnd.connect(disk.socket, {
    deviceFeatures: mask(blkFeatures.FLUSH),
    protocolFeatures: mask(protocolFeatures.PAGEFAULT),
    withoutProtocolFeatures: slots ? 0n : mask(protocolFeatures.CONFIGURE_MEM_SLOTS),
  });
  onEnd(scope, () => frontEnd.close());
  const memory = new SharedMemory(1 << 20);
  onEnd(scope, () => memory.close());

  const { fds } = await frontEnd.request("POSTCOPY_ADVISE", undefined);
  const userfaultfd = fds.take() as number;
  onEnd(scope, () => close(userfaultfd));
  await frontEnd.request("POSTCOPY_LISTEN", undefined);

  const theirs = await frontEnd.shareMemoryPostcopy(memory);
  assert.equal(theirs.guestAddress, BigInt(memory.guestAddress));
  assert.notEqual(theirs.userAddress, memory.userAddress);

  const faults: number[] = [];
  const contents = new Native(PAGE);
  Reactor.shared().watch(userfaultfd, () => {
    for (let fault = nextFault(userfaultfd); fault !== null; fault = nextFault(userfaultfd)) {
      const page = Number(fault - theirs.userAddress) / PAGE | 0;
      faults.push(memory.guestAddress + page * PAGE);
      contents.bytes.fill(page & 0xff);
      resolveFault(userfaultfd, theirs.userAddress + BigInt(page * PAGE), contents.address, PAGE);
    }
  });
  onEnd(scope, () => Reactor.shared().unwatch(userfaultfd));
  return {
    frontEnd,
    memory,
    faults,
    userfaultfd,
  };
}

for (const slots of [false, true]) {
  test(
    `pages come when the device touches them, with ${slots ? "ADD_MEM_REG" : "SET_MEM_TABLE"}`,
    LIMIT,
    async (t) => {
      const { frontEnd, memory, faults } = await arrive(t, slots);
      await frontEnd.acknowledgePostcopy();
      const queue = await frontEnd.startQueue(0, memory, { size: 8 });
      await frontEnd.driverOk();

      const header = memory.allocate(16);
      const status = memory.allocate(1);
      // Never touched here, so it is a hole in the memory file: it has not arrived yet.
      const missing = memory.allocate(2 * PAGE, PAGE);
      const back = memory.allocate(2 * PAGE, PAGE);
      new DataView(header.bytes.buffer, header.bytes.byteOffset).setUint32(0, BlkRequest.OUT, true);
      const at = ({ guestAddress }: { guestAddress: number }, length: number) => ({ guestAddress, length });
      await queue.request([at(header, 16), at(missing, 2 * PAGE)], [at(status, 1)]);
      assert.equal(status.bytes[0], 0);
      const pages = [missing.guestAddress, missing.guestAddress + PAGE];
      assert.deepEqual(faults.filter((each) => pages.includes(each)), pages);

      new DataView(header.bytes.buffer, header.bytes.byteOffset).setUint32(0, BlkRequest.IN, true);
      back.bytes.fill(0xee);
      await queue.request([at(header, 16)], [at(back, 2 * PAGE), at(status, 1)]);
      const number = (missing.guestAddress - memory.guestAddress) / PAGE;
      assert.deepEqual(back.bytes.slice(0, PAGE), new Uint8Array(PAGE).fill(number & 0xff));
      assert.deepEqual(back.bytes.slice(PAGE), new Uint8Array(PAGE).fill((number + 1) & 0xff));

      await frontEnd.request("POSTCOPY_END", undefined);
      await queue.request([at(header, 16)], [at(back, 2 * PAGE), at(status, 1)]);
    },
  );
}

test(
  "POSTCOPY_END with no memory in between; LISTEN without ADVISE, or with memory shared, fails",
  LIMIT,
  async (t) => {
    const { frontEnd, userfaultfd } = await arrive(t, false);
    await frontEnd.request("POSTCOPY_END", undefined);
    assert.ok(isOpen(userfaultfd));
    await assert.rejects(frontEnd.request("POSTCOPY_LISTEN", undefined), /failure/);
    const { fds } = await frontEnd.request("POSTCOPY_ADVISE", undefined);
    fds.close();
    await assert.rejects(
      frontEnd.request("POSTCOPY_LISTEN", undefined),
      /failure/,
      "memory is shared already",
    );
  },
);
