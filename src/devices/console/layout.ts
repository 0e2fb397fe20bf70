/**
 * Numbers and structures of the console device (virtio 1.4, section 5.3; Linux `virtio_console.h`).
 *
 * @module
 */

import { Struct, u16, u32 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const consoleFeatures = { SIZE: 0, MULTIPORT: 1, EMERG_WRITE: 2 } as const;

/** The configuration space. */
export interface ConsoleConfig {
  /** Characters in a row of port 0. */
  readonly cols: number;
  /** Rows of port 0. */
  readonly rows: number;
  /** The most ports that there can be. */
  readonly maxPorts: number;
  /** For writing a character without a ring. */
  readonly emergencyWrite: number;
}

/** Layout of the configuration space: 12 bytes. */
export const consoleConfig: Struct<ConsoleConfig> = new Struct<ConsoleConfig>({
  cols: u16,
  rows: u16,
  maxPorts: u32,
  emergencyWrite: u32,
});

/** What a control message says. */
export const ConsoleEvent = {
  DEVICE_READY: 0,
  PORT_ADD: 1,
  PORT_REMOVE: 2,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

/** Bytes of a control message: u32 port, u16 event, u16 value; then what belongs to the event. */
export const CONTROL_SIZE = 8;

/** The most ports: two rings for each, and two for control, within 256. */
export const MAX_PORTS = 127;
