/**
 * Numbers and structures of the SCSI host (virtio 1.4, section 5.6; Linux `virtio_scsi.h`).
 *
 * @module
 */

import { Struct, u16, u32 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const scsiFeatures = { INOUT: 0, HOTPLUG: 1, CHANGE: 2, T10_PI: 3 } as const;

/** The configuration space. */
export interface ScsiConfig {
  /** Request queues. */
  readonly numQueues: number;
  /** Most segments of a request. */
  readonly segMax: number;
  /** Most sectors of 512 bytes that a request should move. */
  readonly maxSectors: number;
  /** Most commands under way for each logical unit. */
  readonly cmdPerLun: number;
  /** Bytes of an event. */
  readonly eventInfoSize: number;
  /** Bytes of sense data in an answer. The driver may write it. */
  readonly senseSize: number;
  /** Bytes of a command in a request. The driver may write it. */
  readonly cdbSize: number;
  /** Highest channel. */
  readonly maxChannel: number;
  /** Highest target. */
  readonly maxTarget: number;
  /** Highest logical unit. */
  readonly maxLun: number;
}

/** Layout of the configuration space: 36 bytes. */
export const scsiConfig: Struct<ScsiConfig> = new Struct<ScsiConfig>({
  numQueues: u32,
  segMax: u32,
  maxSectors: u32,
  cmdPerLun: u32,
  eventInfoSize: u32,
  senseSize: u32,
  cdbSize: u32,
  maxChannel: u16,
  maxTarget: u16,
  maxLun: u32,
});

/** Number of the first request queue; before it the control queue and the event queue. */
export const FIRST_REQUEST_QUEUE = 2;

/** Bytes of sense data in an answer, at power-on. */
export const SENSE_SIZE = 96;
/** Bytes of a command in a request, at power-on. */
export const CDB_SIZE = 32;
/** Bytes of a request before the command: u8 lun[8], u64 id, u8 task_attr, u8 prio, u8 crn. */
export const REQUEST_SIZE = 19;
/** Bytes of an answer before the sense data: u32 sense_len, u32 residual, u16 status_qualifier, u8 status, u8 response. */
export const RESPONSE_SIZE = 12;

/** How a request went, for the transport. The last five are of task management. */
export const ScsiResponse = {
  OK: 0,
  OVERRUN: 1,
  ABORTED: 2,
  BAD_TARGET: 3,
  RESET: 4,
  BUSY: 5,
  TRANSPORT_FAILURE: 6,
  TARGET_FAILURE: 7,
  NEXUS_FAILURE: 8,
  FAILURE: 9,
  FUNCTION_SUCCEEDED: 10,
  FUNCTION_REJECTED: 11,
  INCORRECT_LUN: 12,
} as const;

/** Kinds of control request: u32 type, then as the type says. */
export const ScsiControl = { TMF: 0, AN_QUERY: 1, AN_SUBSCRIBE: 2 } as const;
/** Bytes of a task management request: u32 type, u32 subtype, u8 lun[8], u64 id. Answered by a byte. */
export const TMF_SIZE = 24;
/** Bytes of a request about notifications: u32 type, u8 lun[8], u32 event. Answered by u32 event, u8 response. */
export const NOTIFICATION_SIZE = 16;
/** Bytes of the answer to it. */
export const NOTIFICATION_ANSWER_SIZE = 5;

/** Task management functions. */
export const ScsiTmf = {
  ABORT_TASK: 0,
  ABORT_TASK_SET: 1,
  CLEAR_ACA: 2,
  CLEAR_TASK_SET: 3,
  I_T_NEXUS_RESET: 4,
  LOGICAL_UNIT_RESET: 5,
  QUERY_TASK: 6,
  QUERY_TASK_SET: 7,
} as const;

/** Kinds of event: u32 event, u8 lun[8], u32 reason. */
export const ScsiEvent = { NO_EVENT: 0, TRANSPORT_RESET: 1, ASYNC_NOTIFY: 2, PARAM_CHANGE: 3 } as const;
/** Flag of an event: others before it found no buffer. */
export const EVENTS_MISSED = 0x8000_0000;
/** Bytes of an event. */
export const EVENT_SIZE = 16;
/** Reasons of a TRANSPORT_RESET. */
export const ResetReason = { HARD: 0, RESCAN: 1, REMOVED: 2 } as const;
