import assert from "node:assert/strict";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import {
  type CaseResult,
  check,
  type CheckOptions,
  resultsOf,
  SpawnedTarget,
} from "../../src/tools/check/mod.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { type PeerName, peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";

// Back-ends of others, checked case by case. What they did when it was last looked at is in check_results/; a
// difference is either news about them (VHOST_CHECK_RECORD=1 writes it down, and docs/peers.md may have to say it) or a
// mistake of a case. docs/peers.md tells what it all means.

/** What is known of a back-end. */
interface Record_ {
  /** Its name. */
  peer: string;
  /** The version that was checked. */
  version: string;
  /** Kind of device. */
  device: string;
  /** Cases whose result depends on which of two threads is first; they are not compared. */
  unsteady: string[];
  /** Verdict of each case; after a colon, what came. */
  results: Record<string, string>;
}

/** A back-end and how to start it. */
interface Peer {
  name: PeerName;
  options: CheckOptions;
  /** For the shell, with `{socket}` for the socket's path. */
  command(scope: Scope): string;
  version(): Promise<string>;
}

const ended = (text: string): string => text.trim().split("\n")[0];

const peers: readonly Peer[] = [
  {
    name: "qemu-storage-daemon",
    options: { device: "blk", write: true },
    command: (scope) => {
      const image = join(tempDir(scope), "disk.img");
      writeFileSync(image, "");
      truncateSync(image, 64 * 2 ** 20);
      return `exec ${peerPath("qemu-storage-daemon")} ` +
        // Slow enough that requests can be met under way.
        "--object throttle-group,id=slow,x-iops-total=400 " +
        `--blockdev driver=file,filename=${image},node-name=file,discard=unmap ` +
        "--blockdev driver=throttle,throttle-group=slow,file=file,node-name=disk,discard=unmap " +
        "--export type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=4";
    },
    version: async () => {
      const { stdout } = await run(peerPath("qemu-storage-daemon"), ["--version"]);
      return /version ([0-9.]+)/.exec(stdout)?.[1] ?? ended(stdout);
    },
  },
  {
    name: "virtiofsd",
    options: { device: "fs" },
    command: (scope) =>
      `exec ${peerPath("virtiofsd")} --socket-path={socket} --shared-dir=${tempDir(scope)} ` +
      "--sandbox=none --log-level=off",
    version: async () => ended((await run(peerPath("virtiofsd"), ["--version"])).stdout).split(" ")[1],
  },
  {
    name: "passt",
    options: { device: "net" },
    command: () => {
      const user = process.getuid?.() === 0 ? " --runas 0:0" : "";
      return `exec ${peerPath("passt")} --vhost-user -f -q -s {socket} -a 10.0.2.15 -n 24 -g 10.0.2.2${user}`;
    },
    version: async () => {
      // What it writes to a pipe is lost.
      const { stdout } = await run("/bin/sh", [
        "-c",
        'f=$(mktemp) && "$0" --version >"$f" && cat "$f" && rm "$f"',
        peerPath("passt"),
      ]);
      return ended(stdout);
    },
  },
  {
    name: "testpmd",
    options: { device: "net" },
    command: () => {
      const root = dirname(dirname(peerPath("testpmd")));
      const libraries = join(root, "lib/x86_64-linux-gnu");
      // It ends when its input does.
      return `sleep 1000 | LD_LIBRARY_PATH=${libraries} exec ${peerPath("testpmd")} ` +
        `-d ${join(libraries, "dpdk/pmds-25.0")} --lcores '0@0,1@1' --no-huge -m 256 --no-pci ` +
        "--file-prefix check$$ --vdev net_vhost0,iface={socket},queues=1 -- --no-mlockall " +
        "--total-num-mbufs=4096 --forward-mode=rxonly --rxq=1 --txq=1 --auto-start --stats-period=0";
    },
    version: () => {
      const file = join(dirname(dirname(dirname(peerPath("testpmd")))), "version");
      return Promise.resolve(readFileSync(file, "utf8").trim().replace(/[-+].*/, ""));
    },
  },
  {
    name: "vhost-device-vsock",
    options: { device: "vsock" },
    command: (scope) =>
      `exec ${peerPath("vhost-device-vsock")} --vm guest-cid=3,socket={socket},uds-path=${
        join(tempDir(scope), "u")
      }`,
    version: async () =>
      ended((await run(peerPath("vhost-device-vsock"), ["--version"])).stdout).split(" ")[1],
  },
];

function recordPath(name: string): string {
  return fileURLToPath(new URL(`check_results/${name}.json`, import.meta.url));
}

/** A result as it is written down. */
function text({ verdict, got }: CaseResult): string {
  const says = (verdict === "fail" || verdict === "undefined") && got !== undefined;
  // Paths and process numbers are of this run only.
  return says ? `${verdict}: ${got.replace(/\/\S*\.sock/g, "SOCKET")}` : verdict;
}

const verdictOf = (text: string): string => text.split(":")[0];

/** Differences between what was written down and what came, one line each. */
function differences(known: Record_, results: readonly CaseResult[]): string[] {
  const came = new Map(results.map((result) => [result.id, text(result)]));
  const ids = [...new Set([...Object.keys(known.results), ...came.keys()])];
  return ids.filter((id) => !known.unsteady.includes(id)).flatMap((id) => {
    const [before, now] = [known.results[id] ?? "no such case", came.get(id) ?? "no such case"];
    return verdictOf(before) === verdictOf(now) ? [] : [`${id}\n  was  ${before}\n  is   ${now}`];
  });
}

for (const { name, options, command, version } of peers) {
  realTest(
    `what ${name} does is what is written down`,
    [name],
    { timeout: 300_000 },
    async (t: TestContext) => {
      const target = new SpawnedTarget(
        `unset RUST_BACKTRACE; ${command(t)}`,
        join(tempDir(t), "peer.sock"),
        1500,
      );
      onEnd(t, () => target.close());
      const results = resultsOf(await check(target, { patience: 1500, timeout: 20_000, ...options }));
      const path = recordPath(name);
      const now = await version();
      if (process.env.VHOST_CHECK_RECORD === "1") {
        let unsteady: string[] = [];
        try {
          unsteady = (JSON.parse(readFileSync(path, "utf8")) as Record_).unsteady;
        } catch {
          // The first time.
        }
        const record: Record_ = {
          peer: name,
          version: now,
          device: options.device ?? "any",
          unsteady,
          results: Object.fromEntries(results.map((result) => [result.id, text(result)])),
        };
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, `${JSON.stringify(record, null, 2)}\n`);
        return;
      }
      const known: Record_ = JSON.parse(readFileSync(path, "utf8"));
      const different = differences(known, results);
      if (known.version === now) {
        assert.equal(different.length, 0, `${name} ${now}:\n${different.join("\n")}`);
      } else if (different.length > 0) {
        t.diagnostic(`${name} ${now} differs from ${known.version}:\n${different.join("\n")}`);
      }
    },
  );
}
