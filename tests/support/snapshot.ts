import { createHash, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Scope } from "./cleanup.ts";
import { Guest, type GuestOptions, machineArguments } from "./guest.ts";
import { guestDir, peerPath } from "./peers.ts";
import { run } from "./process.ts";

/** What a guest from a snapshot may choose; the rest is the snapshot's. */
export type RestoreOptions = Pick<
  GuestOptions,
  "emulator" | "memory" | "smp" | "cmdline" | "machine" | "memoryBackend"
>;

/**
 * Starts a guest from a snapshot taken just after boot: 0.2 s instead of 2. Every module is loaded and there
 * are four free slots for `plug`. The first call ever boots the guest and takes the snapshot, which is kept
 * beside the guest's kernel.
 */
export async function restoreGuest(scope: Scope, options: RestoreOptions = {}): Promise<Guest> {
  const shape: GuestOptions = { ...options, modules: ["all"], slots: 4 };
  const snapshot = await snapshotOf(scope, shape);
  const guest = await Guest.start(scope, { ...shape, incoming: "defer" });
  await setMappedRam(guest, true);
  await guest.qmp("migrate-incoming", { uri: `file:${snapshot}` });
  // The snapshot was taken of a stopped guest, so that is how it arrives.
  await guest.waitStatus("paused");
  await setMappedRam(guest, false);
  await guest.qmp("cont");
  return guest;
}

/** The file with the snapshot of a guest of this shape. */
async function snapshotOf(scope: Scope, shape: GuestOptions): Promise<string> {
  const folder = join(guestDir, "snapshots");
  const file = join(folder, await keyOf(shape));
  if (existsSync(file)) return file;

  mkdirSync(folder, { recursive: true });
  const guest = await Guest.start(scope, shape);
  await guest.qmp("stop");
  await setMappedRam(guest, true);
  // Others may be doing the same at this moment: each writes its own, and the last to finish wins.
  const draft = `${file}.${randomUUID()}`;
  try {
    await guest.qmp("migrate", { uri: `file:${draft}` });
    await guest.waitStatus("completed", "query-migrate");
    renameSync(draft, file);
  } finally {
    rmSync(draft, { force: true });
    await guest.stop();
  }
  return file;
}

/** Says which guests fit a snapshot: the same emulator, the same files, the same machine. */
async function keyOf(shape: GuestOptions): Promise<string> {
  const { stdout } = await run(peerPath(shape.emulator ?? "qemu"), ["--version"]);
  const version = readFileSync(join(guestDir, "version"), "utf8");
  const text = JSON.stringify([stdout, version, machineArguments(shape)]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/**
 * Mapped RAM is memory at fixed places in a file: smaller and faster than a stream of pages, but only for
 * files, so it must be off again before the guest can migrate to another.
 */
async function setMappedRam(guest: Guest, state: boolean): Promise<void> {
  await guest.qmp("migrate-set-capabilities", { capabilities: [{ capability: "mapped-ram", state }] });
}
