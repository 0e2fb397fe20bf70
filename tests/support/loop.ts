import { existsSync } from "node:fs";
import process from "node:process";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import { newImage } from "./image.ts";
import { which } from "./path.ts";
import { run } from "./process.ts";

/** Why there can be no loop devices here; empty where there can be. */
export const loopMissing: string = process.getuid?.() !== 0
  ? "only root may make loop devices"
  : which("losetup") === undefined
  ? "missing losetup"
  : !existsSync("/dev/loop-control")
  ? "this kernel has no loop devices"
  : "";

/** Makes a block device of a file; its name goes with the test. */
export async function loopDevice(scope: Scope, file: string): Promise<string> {
  const loop = (await run("losetup", ["--find", "--show", file])).stdout.trim();
  onEnd(scope, async () => {
    await run("losetup", ["--detach", loop]);
  });
  return loop;
}

/** A file system of the host's that a test has to itself. */
export interface HostFileSystem {
  /** Where it is mounted. */
  readonly folder: string;
  /** The file with its bytes: what a disk would hold when the power is cut. */
  readonly file: string;
  /** Does something while all writes to it are held back. */
  frozen<T>(act: () => Promise<T>): Promise<T>;
}

/** Makes and mounts an ext4 that writes to its disk only when it is told to, or after minutes. */
export async function hostFileSystem(scope: Scope, size: number): Promise<HostFileSystem> {
  const file = newImage(scope, size);
  await run("mkfs.ext4", ["-q", file]);
  const loop = await loopDevice(scope, file);
  const folder = tempDir(scope);
  await run("mount", ["-t", "ext4", "-o", "commit=300", loop, folder]);
  onEnd(scope, async () => {
    await run("umount", [folder]);
  });
  const frozen = async <T>(act: () => Promise<T>): Promise<T> => {
    await run("fsfreeze", ["--freeze", folder]);
    try {
      return await act();
    } finally {
      await run("fsfreeze", ["--unfreeze", folder]);
    }
  };
  return { folder, file, frozen };
}
