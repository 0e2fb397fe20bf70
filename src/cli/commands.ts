/**
 * All commands.
 *
 * @module
 */

import type { Commands } from "./command.ts";

/** The commands of `vhost-user`. */
export const commands: Commands = {
  blk: async () => (await import("./blk.ts")).blk,
  capabilities: async () => (await import("./capabilities.ts")).capabilitiesOf(commands),
  check: async () => (await import("./check.ts")).check,
  completions: async () => (await import("./completions.ts")).completionsOf(commands),
  console: async () => (await import("./console.ts")).console,
  gpio: async () => (await import("./gpio.ts")).gpio,
  i2c: async () => (await import("./i2c.ts")).i2c,
  input: async () => (await import("./input.ts")).input,
  man: async () => (await import("./man.ts")).manOf(commands),
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
