/**
 * Numbers of the input device (virtio 1.4, section 5.8; Linux `virtio_input.h`, `input-event-codes.h`).
 *
 * @module
 */

/** What the driver asks the configuration space for. */
export const Select = {
  UNSET: 0,
  NAME: 1,
  SERIAL: 2,
  DEVIDS: 3,
  PROP_BITS: 0x10,
  EV_BITS: 0x11,
  ABS_INFO: 0x12,
} as const;

/** Bytes of the configuration space: u8 select, u8 subsel, u8 size, 5 reserved, then the answer. */
export const CONFIG_SIZE = 136;
/** Where the answer is. */
export const ANSWER = 8;
/** The longest answer, bytes. */
export const MAX_ANSWER: number = CONFIG_SIZE - ANSWER;
/** Bytes of an event: u16 type, u16 code, i32 value. */
export const EVENT_SIZE = 8;

/** Types of events. */
export const EventType = {
  SYN: 0x00,
  KEY: 0x01,
  REL: 0x02,
  ABS: 0x03,
  MSC: 0x04,
  SW: 0x05,
  LED: 0x11,
  SND: 0x12,
  REP: 0x14,
} as const;

/** The highest type that there is. */
export const MAX_EVENT_TYPE = 0x1f;
/** The highest code of any type. */
export const MAX_CODE = 0x2ff;

/** Codes of SYN: a report ends a group, "dropped" says that some are missing. */
export const Syn = { REPORT: 0, DROPPED: 3 } as const;

/** Properties of a device. */
export const Property = { POINTER: 0, DIRECT: 1, BUTTONPAD: 2, SEMI_MT: 3, TOPBUTTONPAD: 4 } as const;

/** Relative axes. */
export const Rel = { X: 0, Y: 1, HWHEEL: 6, WHEEL: 8 } as const;

/** Absolute axes. */
export const Abs = {
  X: 0x00,
  Y: 0x01,
  PRESSURE: 0x18,
  MT_SLOT: 0x2f,
  MT_TOUCH_MAJOR: 0x30,
  MT_POSITION_X: 0x35,
  MT_POSITION_Y: 0x36,
  MT_TRACKING_ID: 0x39,
  MT_PRESSURE: 0x3a,
  MT_TOOL_Y: 0x3d,
} as const;

/** Lights of a keyboard. */
export const Led = { NUM_LOCK: 0, CAPS_LOCK: 1, SCROLL_LOCK: 2, COMPOSE: 3, KANA: 4 } as const;
