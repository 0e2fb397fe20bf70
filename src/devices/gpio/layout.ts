/**
 * Numbers and structures of the GPIO device (virtio 1.4, section 5.17; Linux `virtio_gpio.h`).
 *
 * @module
 */

import { Struct, u16, u32 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const gpioFeatures = { IRQ: 0 } as const;

/** Kinds of request. */
export const GpioMessage = {
  GET_LINE_NAMES: 1,
  GET_DIRECTION: 2,
  SET_DIRECTION: 3,
  GET_VALUE: 4,
  SET_VALUE: 5,
  SET_IRQ_TYPE: 6,
} as const;

/** Which way a line goes; `NONE` for one that is not in use. */
export const GpioDirection = { NONE: 0, OUT: 1, IN: 2 } as const;
/** A value of {@link GpioDirection}. */
export type GpioDirection = typeof GpioDirection[keyof typeof GpioDirection];

/** What a line interrupts at. */
export const GpioInterrupt = {
  NONE: 0,
  EDGE_RISING: 1,
  EDGE_FALLING: 2,
  EDGE_BOTH: 3,
  LEVEL_HIGH: 4,
  LEVEL_LOW: 8,
} as const;
/** A value of {@link GpioInterrupt}. */
export type GpioInterrupt = typeof GpioInterrupt[keyof typeof GpioInterrupt];

/** The level of a line: 0 low, 1 high. */
export type GpioLevel = 0 | 1;

/** First byte of the answer to a request. */
export const GpioStatus = { OK: 0, ERR: 1 } as const;

/** The answer on the event ring: whether there was an interrupt, or the buffer just comes back. */
export const GpioEventStatus = { INVALID: 0, VALID: 1 } as const;

/** Bytes of a request: u16 type, u16 line, u32 value. */
export const REQUEST_SIZE = 8;
/** Bytes of an answer: u8 status, u8 value. The answer to GET_LINE_NAMES has as many as the names after the status. */
export const RESPONSE_SIZE = 2;

/** The configuration space. */
export interface GpioConfig {
  /** Lines. */
  readonly ngpio: number;
  /** Bytes of all names with their terminators; 0 without names. */
  readonly gpioNamesSize: number;
}

/** Layout of the configuration space: 8 bytes, of which two are padding. */
export const gpioConfig: Struct<GpioConfig> = new Struct<GpioConfig>({ ngpio: u16, gpioNamesSize: u32 });
