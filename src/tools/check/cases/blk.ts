/**
 * The block device (virtio 1.4, section 5.2).
 *
 * @module
 */

import { blkFeatures, BlkRequest, BlkStatus, ID_SIZE, RANGE_UNMAP } from "../../../devices/blk/layout.ts";
import { SECTOR } from "../../../devices/storage/storage.ts";
import { has } from "../../../protocol/features.ts";
import type { Case } from "../case.ts";
import { fail, type Finding, type Needs, notOffered, open, pass, virtio } from "../finding.ts";
import { blkHeader, blkRead } from "../profile.ts";
import type { Drive } from "../drive.ts";
import type { Trial } from "../trial.ts";
import {
  anything,
  Area,
  ask,
  config,
  expect,
  named,
  pattern,
  range,
  sameBytes,
  sectors,
} from "./blk_requests.ts";

const OPERATION = virtio("5.2.6");
const DEVICE = virtio("5.2.6.2");
const INIT = virtio("5.2.5.2");
const { OK, IOERR, UNSUPP } = BlkStatus;
const withConfig = { requests: true, protocol: ["CONFIG"] } as const;

/** A case about one read-only request. */
function reading(
  id: string,
  title: string,
  run: (drive: Drive, trial: Trial) => Promise<Finding | void>,
  section = OPERATION,
  needs: Needs = withConfig,
): Case {
  return {
    id: `blk.${id}`,
    title,
    section,
    devices: ["blk"],
    needs,
    run: async (trial) => await run(await trial.drive(), trial),
  };
}

/** A case that writes to an area, whose contents it puts back. */
function writing(
  id: string,
  title: string,
  feature: Readonly<Record<string, number>>,
  run: (drive: Drive, area: Area, trial: Trial) => Promise<Finding | void>,
  section = OPERATION,
): Case {
  return {
    id: `blk.${id}`,
    title,
    section,
    devices: ["blk"],
    writes: true,
    needs: { ...withConfig, device: feature },
    run: async (trial) => {
      if (has(trial.offer.features, blkFeatures.RO)) notOffered("a disk that can be written");
      const drive = await trial.drive();
      const area = await Area.take(drive, trial.settings.writeAt);
      try {
        return await run(drive, area, trial);
      } finally {
        await area.restore();
      }
    },
  };
}

/** Requests past the end: no driver may send them, so the status is open; to answer is not. */
function pastEnd(id: string, title: string, sector: (capacity: number) => number, length: number): Case {
  return reading(id, title, async (drive) => {
    const { status } = await ask(drive, blkRead(sector(await sectors(drive)), length));
    if (status !== IOERR) return open(named(status));
  }, virtio("5.2.6.1"));
}

const zoneTypes = { ZONE_OPEN: 18, ZONE_CLOSE: 20, ZONE_FINISH: 22, ZONE_APPEND: 15, ZONE_REPORT: 16 };

/** Cases for disks. */
export const blkCases: readonly Case[] = [
  reading("config", "The configuration space makes sense", async (drive, trial): Promise<Finding | void> => {
    const { capacity, blkSize, numQueues, unused0, unused1, writeback } = await config(drive);
    if (unused0 !== 0 || unused1.some((byte) => byte !== 0)) fail("padding of 0", "something else");
    if (writeback > 1) fail("writeback of 0 or 1", `${writeback}`);
    const { features } = trial.offer;
    if (has(features, blkFeatures.BLK_SIZE) && (blkSize < SECTOR || (blkSize & (blkSize - 1)) !== 0)) {
      fail("a blk_size that is a power of two from 512", `${blkSize}`);
    }
    if (has(features, blkFeatures.MQ)) {
      if (numQueues < 1) fail("num_queues of at least 1", `${numQueues}`);
      if (trial.offer.queues !== undefined && numQueues > trial.offer.queues) {
        fail(`num_queues of at most ${trial.offer.queues}, as GET_QUEUE_NUM says`, `${numQueues}`);
      }
    }
    return capacity === 0n ? open("a disk of size 0") : undefined;
  }, INIT),
  {
    id: "blk.flush-offered",
    title: "FLUSH is offered when CONFIG_WCE is",
    section: INIT,
    devices: ["blk"],
    run: ({ offer: { features } }) => {
      if (!has(features, blkFeatures.CONFIG_WCE)) {
        return has(features, blkFeatures.FLUSH) ? undefined : open("neither is offered");
      }
      if (!has(features, blkFeatures.FLUSH)) fail("FLUSH", "CONFIG_WCE without FLUSH");
    },
  },
  reading("read", "The first sector can be read", async (drive) => {
    const { status, written } = await ask(drive, blkRead(0));
    expect(status, OK, "a read");
    if (written !== SECTOR + 1) return open(`used length ${written} instead of ${SECTOR + 1}`);
  }),
  reading("read-same", "However a read is cut into descriptors, it gives the same bytes", async (drive) => {
    const whole = await ask(drive, blkRead(0, 4096));
    expect(whole.status, OK, "a read");
    for (const options of [{ cut: 512 }, { cut: 100 }, { cut: 1024 }]) {
      const pieces = await ask(drive, blkRead(0, 4096), options);
      expect(pieces.status, OK, "a read");
      sameBytes(pieces.data, whole.data, "the same bytes");
    }
  }),
  reading("read-last", "The last sector can be read", async (drive) => {
    const capacity = await sectors(drive);
    if (capacity === 0) notOffered("a disk with sectors");
    expect((await ask(drive, blkRead(capacity - 1))).status, OK, "a read of the last sector");
  }),
  reading("read-large", "1 MiB can be read at once", async (drive): Promise<Finding | void> => {
    if (await sectors(drive) < 2048) notOffered("a disk of 1 MiB");
    const { status } = await ask(drive, blkRead(0, 1 << 20));
    expect(status, OK, "a read of 1 MiB");
  }),
  reading("read-nothing", "A read of 0 bytes is answered", async (drive) => {
    const { status } = await ask(drive, blkRead(0, 0));
    if (status !== OK) return open(named(status));
  }),
  pastEnd("past-end", "A read past the end fails", (capacity) => capacity, SECTOR),
  pastEnd("over-end", "A read that begins on the disk and ends past it fails", (n) => n - 1, 2 * SECTOR),
  pastEnd("far", "A read at sector 2^54 fails", () => 2 ** 54, SECTOR),
  pastEnd("unaligned", "A read of 100 bytes fails", () => 0, 100),
  reading("unknown", "A request of an unknown type is not supported", async (drive) => {
    expect((await ask(drive, anything(0x7777, 0, new Uint8Array(0)))).status, UNSUPP, "type 0x7777");
  }),
  ...Object.entries(zoneTypes).map(([name, type]): Case => ({
    ...reading(`no-${name}`, `${name} is not supported by a disk without zones`, async (drive, trial) => {
      if (has(trial.offer.features, blkFeatures.ZONED)) notOffered("a disk without zones");
      const { status } = await ask(drive, anything(type, 0, new Uint8Array(0), 512));
      expect(status, UNSUPP, name);
    }, DEVICE),
    // On a disk that does it after all, some of them write.
    writes: true,
  })),
  reading("id", "The serial number has 20 bytes", async (drive) => {
    const { status, data } = await ask(drive, anything(BlkRequest.GET_ID, 0, new Uint8Array(0), ID_SIZE));
    if (status !== OK) return open(named(status));
    if (data.every((byte) => byte === 0xee)) fail("20 bytes", "none");
  }),
  reading(
    "flush",
    "FLUSH succeeds",
    async (drive) => {
      expect((await ask(drive, anything(BlkRequest.FLUSH, 0, new Uint8Array(0)))).status, OK, "FLUSH");
    },
    OPERATION,
    { requests: true, device: { FLUSH: blkFeatures.FLUSH } },
  ),
  reading(
    "short-header",
    "A header of 8 bytes does no harm",
    async (drive, trial): Promise<Finding | void> => {
      const placed = drive.place({ readable: new Uint8Array(8), writable: 513, check: () => undefined });
      drive.ring.offer(placed.head);
      drive.ring.kick();
      await drive.ring.returns(1, trial.soon);
      if (!await drive.peer.answers()) return pass("closes the connection");
      return pass(drive.ring.returned > 0 ? named(placed.answer[512]) : "the ring breaks");
    },
  ),
  reading("no-status", "A request without room for its status does no harm", async (drive, trial) => {
    const placed = drive.place({
      readable: blkHeader(BlkRequest.FLUSH, 0),
      writable: 0,
      check: () => undefined,
    });
    drive.ring.offer(placed.head);
    drive.ring.kick();
    await drive.ring.returns(1, trial.soon);
    if (!await drive.peer.answers()) return pass("closes the connection");
    return pass(drive.ring.returned > 0 ? "is returned" : "the ring breaks");
  }),
  reading("parallel", "32 reads at once give what one after the other gives", async (drive) => {
    const count = Math.min(32, await sectors(drive));
    const one = await ask(drive, blkRead(0, count * SECTOR));
    const placed = Array.from({ length: count }, (_, i) => drive.place(blkRead(i)));
    drive.ring.offer(...placed.map(({ head }) => head));
    drive.ring.kick();
    await drive.finish(placed, "a read");
    placed.forEach(({ answer }, i) => {
      sameBytes(
        answer.subarray(0, SECTOR),
        one.data.subarray(i * SECTOR, (i + 1) * SECTOR),
        "the same bytes",
      );
    });
  }),
  {
    id: "blk.read-only",
    title: "A write to a read-only disk fails with IOERR",
    section: DEVICE,
    devices: ["blk"],
    writes: true,
    needs: { ...withConfig, device: { RO: blkFeatures.RO } },
    run: async (trial) => {
      const drive = await trial.drive();
      const before = await ask(drive, blkRead(0));
      const { status } = await ask(drive, anything(BlkRequest.OUT, 0, before.data));
      expect(status, IOERR, "a write to a read-only disk");
    },
  },
  writing("write", "What was written is read back", {}, async (drive, area) => {
    for (const seed of [1, 2]) {
      await area.write(pattern(seed));
      sameBytes(await area.read(), pattern(seed), "what was written");
    }
    expect((await ask(drive, anything(BlkRequest.FLUSH, 0, new Uint8Array(0)))).status, OK, "FLUSH");
    sameBytes(await area.read(), pattern(2), "what was written, after a flush");
  }),
  writing("write-cut", "A write may be cut into descriptors of any size", {}, async (drive, area) => {
    await area.write(pattern(3));
    const data = pattern(4).subarray(0, 8192);
    const { status } = await ask(drive, anything(BlkRequest.OUT, area.sector, data), { cut: 300 });
    expect(status, OK, "a write in pieces");
    const wanted = pattern(3);
    wanted.set(data);
    sameBytes(await area.read(), wanted, "what was written, and the rest as it was");
  }, virtio("2.7.4.1")),
  writing("write-past-end", "A write past the end changes nothing", {}, async (drive) => {
    const capacity = await sectors(drive);
    const { status } = await ask(drive, anything(BlkRequest.OUT, capacity, new Uint8Array(SECTOR)));
    if (await sectors(drive) !== capacity) fail(`${capacity} sectors, as before`, "another capacity");
    if (status === OK) return open("OK");
  }, virtio("5.2.6.1")),
  writing("write-unaligned", "A write of 100 bytes", {}, async (drive, area) => {
    await area.write(pattern(5));
    const { status } = await ask(drive, anything(BlkRequest.OUT, area.sector, new Uint8Array(100)));
    const after = await area.read();
    const wanted = pattern(5);
    if (status !== OK) sameBytes(after, wanted, "nothing written, for the request has failed");
    return status === IOERR ? pass("IOERR") : open(named(status));
  }, virtio("5.2.6.1")),
  writing(
    "write-zeroes",
    "After WRITE_ZEROES the range reads as zeroes, and only the range",
    { WRITE_ZEROES: blkFeatures.WRITE_ZEROES },
    async (drive, area) => {
      for (const flags of [0, RANGE_UNMAP]) {
        await area.write(pattern(6));
        const data = range(area.sector + 16, 64, flags);
        expect((await ask(drive, anything(BlkRequest.WRITE_ZEROES, 0, data))).status, OK, "WRITE_ZEROES");
        const wanted = pattern(6);
        wanted.fill(0, 16 * SECTOR, 80 * SECTOR);
        sameBytes(await area.read(), wanted, `zeroes in the range (flags ${flags}), the rest as it was`);
      }
    },
    DEVICE,
  ),
  writing(
    "discard",
    "DISCARD leaves what is outside of its range",
    { DISCARD: blkFeatures.DISCARD },
    async (drive, area) => {
      await area.write(pattern(7));
      const data = range(area.sector + 16, 64, 0);
      expect((await ask(drive, anything(BlkRequest.DISCARD, 0, data))).status, OK, "DISCARD");
      const after = await area.read();
      const wanted = pattern(7);
      sameBytes(after.subarray(0, 16 * SECTOR), wanted.subarray(0, 16 * SECTOR), "what is before the range");
      sameBytes(after.subarray(80 * SECTOR), wanted.subarray(80 * SECTOR), "what is behind the range");
    },
    DEVICE,
  ),
  writing(
    "discard-unmap",
    "DISCARD with the unmap flag is not supported",
    { DISCARD: blkFeatures.DISCARD },
    async (drive, area) => {
      const data = range(area.sector, 8, RANGE_UNMAP);
      expect((await ask(drive, anything(BlkRequest.DISCARD, 0, data))).status, UNSUPP, "DISCARD with unmap");
    },
    DEVICE,
  ),
  ...(["DISCARD", "WRITE_ZEROES"] as const).map((name) =>
    writing(
      `flags-${name}`,
      `${name} with an unknown flag is not supported`,
      { [name]: blkFeatures[name] },
      async (drive, area) => {
        const data = range(area.sector, 8, 0x80);
        const { status } = await ask(drive, anything(BlkRequest[name], 0, data));
        expect(status, UNSUPP, `${name} with flag 0x80`);
      },
      DEVICE,
    )
  ),
  writing(
    "zeroes-past-end",
    "WRITE_ZEROES past the end fails",
    { WRITE_ZEROES: blkFeatures.WRITE_ZEROES },
    async (drive) => {
      const data = range(await sectors(drive), 8, 0);
      const { status } = await ask(drive, anything(BlkRequest.WRITE_ZEROES, 0, data));
      if (status !== IOERR) return open(named(status));
    },
    virtio("5.2.6.1"),
  ),
];
