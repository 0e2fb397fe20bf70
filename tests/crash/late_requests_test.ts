import assert from "node:assert/strict";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { SECTOR } from "../../src/devices/blk/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { onEnd } from "../support/cleanup.ts";
import { MIB } from "../support/image.ts";
import { hostFileSystem, loopDevice, loopMissing } from "../support/loop.ts";
import { startDisk } from "../support/our_backend.ts";
import { contentsOf, History } from "./history.ts";

// A back-end dies while the disk below it does not get on with a write. Whatever the kernel makes of that write, nobody may be
// served before it is over: it would be done after later ones.

/** How long it is watched that nothing happens, milliseconds. */
const WATCH = 500;

/** Whether one of a process's threads waits for a disk. */
function waitsForDisk(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).some((thread) => {
    let stat = "";
    try {
      stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
    } catch {
      // It has ended meanwhile.
    }
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("D");
  });
}

/** Whether a block device has writes under way. */
function hasWrites(device: string): boolean {
  const [, writes] = readFileSync(`/sys/block/${basename(device)}/inflight`, "utf8").trim().split(/\s+/);
  return Number(writes) > 0;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !holds(); await sleep(5)) {
    assert.ok(Date.now() < deadline, `in vain: ${what}`);
  }
}

for (const aio of ["io_uring", "sync"] as const) {
  for (const direct of [false, true]) {
    for (const kind of ["file", "block device"] as const) {
      // The page cache takes the writes to a block device; there is nothing to wait for.
      if (kind === "block device" && !direct) continue;
      const how = `${aio}${direct ? ", O_DIRECT" : ""}, a ${kind}`;
      const name = `nobody is served while a write of a dead back-end is under way: ${how}`;
      if (loopMissing) {
        test(`${name} [${loopMissing}]`, { skip: loopMissing }, () => {});
        continue;
      }
      test(name, { timeout: 90_000 }, async (t) => {
        const host = await hostFileSystem(t, 32 * MIB);
        let file = join(host.folder, "image");
        writeFileSync(file, "");
        truncateSync(file, MIB);
        if (kind === "block device") file = await loopDevice(t, file);
        const options = { file, args: [`--aio=${aio}`, ...direct ? ["--direct"] : []] };
        const first = await startDisk(t, options);
        const disk = await BlkDriver.connect(first.socket, {
          reconnect: { firstDelay: 1, longestDelay: 10 },
        });
        onEnd(t, () => disk.frontEnd.close());
        let reconnects = 0;
        disk.frontEnd.onReconnect = () => void reconnects++;
        const history = new History(MIB / SECTOR);
        const write = async (): Promise<void> => {
          const issued = history.issue(0, 8);
          await disk.write(0, contentsOf(issued));
          history.acknowledge(issued);
        };
        await write();
        await disk.flush();

        const [hangs, second] = await host.frozen(async () => {
          const hangs = write();
          hangs.catch(() => {});
          await until(
            "the write hangs",
            () => kind === "file" ? waitsForDisk(first.child.pid) : hasWrites(file),
          );
          first.child.kill("SIGKILL");
          await sleep(WATCH);
          const died = first.child.code !== undefined;
          t.diagnostic(
            `the kernel ${died ? "lets the process end" : "keeps the process"} while its write hangs`,
          );
          const second = await startDisk(t, { ...options, replaces: first });
          // The kernel keeps a process, with its sockets, as long as one of its threads waits; or only a little longer.
          const refused = /another process is listening/.test(second.child.output);
          if (!refused) await first.child.waitEnd();
          await sleep(WATCH);
          assert.equal(reconnects, 0, "somebody was served");
          assert.equal(history.pending, 1);
          return [hangs, refused ? undefined : second];
        });
        await first.child.ended;
        const last = second ?? await startDisk(t, { ...options, replaces: first });
        await hangs;
        await write();
        await disk.flush();
        history.check(await disk.read(0, MIB));
        history.check(readFileSync(file));
        await disk.close();
        assert.deepEqual(last.complaints.filter((line) => !/not ready for a front-end/.test(line)), []);
      });
    }
  }
}
