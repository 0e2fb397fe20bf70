/**
 * All commands.
 *
 * @module
 */

import type { Command } from "./command.ts";

/** Commands by name. Each is loaded when it is asked for: a disk starts no sooner for what a network needs. */
export type Commands = Readonly<Record<string, () => Promise<Command>>>;

/** The commands of `vhost-user`. */
export const commands: Commands = {
  blk: async () => (await import("./blk.ts")).blk,
  check: async () => (await import("./check.ts")).check,
  console: async () => (await import("./console.ts")).console,
  gpio: async () => (await import("./gpio.ts")).gpio,
  i2c: async () => (await import("./i2c.ts")).i2c,
  input: async () => (await import("./input.ts")).input,
  net: async () => (await import("./net.ts")).net,
  rng: async () => (await import("./rng.ts")).rng,
  rtc: async () => (await import("./rtc.ts")).rtc,
  run: async () => (await import("./run.ts")).run,
  scmi: async () => (await import("./scmi.ts")).scmi,
  scsi: async () => (await import("./scsi.ts")).scsi,
  sound: async () => (await import("./sound.ts")).sound,
  spi: async () => (await import("./spi.ts")).spi,
  trace: async () => (await import("./trace.ts")).trace,
  vsock: async () => (await import("./vsock.ts")).vsock,
};

/** Loads all of them, in their order. */
export function loadAll(commands: Commands): Promise<(readonly [name: string, command: Command])[]> {
  return Promise.all(Object.entries(commands).map(async ([name, load]) => [name, await load()] as const));
}
