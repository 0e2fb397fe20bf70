/**
 * What a logical unit says when a command went wrong (SPC-4, section 4.5).
 *
 * @module
 */

/** Status of a command (SAM-5, section 5.3). */
export const ScsiStatus = { GOOD: 0, CHECK_CONDITION: 2, BUSY: 8, TASK_SET_FULL: 0x28 } as const;

/** Kinds of trouble. */
export const SenseKey = {
  NO_SENSE: 0,
  NOT_READY: 2,
  MEDIUM_ERROR: 3,
  HARDWARE_ERROR: 4,
  ILLEGAL_REQUEST: 5,
  UNIT_ATTENTION: 6,
  DATA_PROTECT: 7,
  ABORTED_COMMAND: 0xb,
  MISCOMPARE: 0xe,
} as const;

/** A reason: sense key, additional sense code and its qualifier. */
export interface Sense {
  /** One of {@link SenseKey}. */
  readonly key: number;
  /** Additional sense code. */
  readonly asc: number;
  /** Its qualifier. */
  readonly ascq: number;
}

function sense(key: number, asc: number, ascq = 0): Sense {
  return { key, asc, ascq };
}

/** Names of {@link senses}. */
export type SenseName =
  | "NONE"
  | "STOPPED"
  | "WRITE_ERROR"
  | "READ_ERROR"
  | "PARAMETER_LIST_LENGTH"
  | "INVALID_COMMAND"
  | "LBA_OUT_OF_RANGE"
  | "INVALID_FIELD_IN_CDB"
  | "NO_SUCH_UNIT"
  | "INVALID_FIELD_IN_PARAMETERS"
  | "SAVING_NOT_SUPPORTED"
  | "POWER_ON"
  | "UNIT_WAS_RESET"
  | "CAPACITY_CHANGED"
  | "UNITS_CHANGED"
  | "WRITE_PROTECTED"
  | "NO_SPACE"
  | "MISCOMPARE";

/** The reasons that a disk has. */
export const senses: Readonly<Record<SenseName, Sense>> = {
  NONE: sense(SenseKey.NO_SENSE, 0),
  STOPPED: sense(SenseKey.NOT_READY, 0x04, 0x02),
  WRITE_ERROR: sense(SenseKey.MEDIUM_ERROR, 0x0c),
  READ_ERROR: sense(SenseKey.MEDIUM_ERROR, 0x11),
  PARAMETER_LIST_LENGTH: sense(SenseKey.ILLEGAL_REQUEST, 0x1a),
  INVALID_COMMAND: sense(SenseKey.ILLEGAL_REQUEST, 0x20),
  LBA_OUT_OF_RANGE: sense(SenseKey.ILLEGAL_REQUEST, 0x21),
  INVALID_FIELD_IN_CDB: sense(SenseKey.ILLEGAL_REQUEST, 0x24),
  NO_SUCH_UNIT: sense(SenseKey.ILLEGAL_REQUEST, 0x25),
  INVALID_FIELD_IN_PARAMETERS: sense(SenseKey.ILLEGAL_REQUEST, 0x26),
  SAVING_NOT_SUPPORTED: sense(SenseKey.ILLEGAL_REQUEST, 0x39),
  POWER_ON: sense(SenseKey.UNIT_ATTENTION, 0x29, 0x00),
  UNIT_WAS_RESET: sense(SenseKey.UNIT_ATTENTION, 0x29, 0x03),
  CAPACITY_CHANGED: sense(SenseKey.UNIT_ATTENTION, 0x2a, 0x09),
  UNITS_CHANGED: sense(SenseKey.UNIT_ATTENTION, 0x3f, 0x0e),
  WRITE_PROTECTED: sense(SenseKey.DATA_PROTECT, 0x27),
  NO_SPACE: sense(SenseKey.DATA_PROTECT, 0x27, 0x07),
  MISCOMPARE: sense(SenseKey.MISCOMPARE, 0x1d),
};

/** Bytes of sense data in the form with fixed fields. */
export const FIXED_SENSE_SIZE = 18;

/** Sense data with fixed fields, or with none beyond the reason itself (descriptor format). */
export function senseData({ key, asc, ascq }: Sense, descriptorFormat = false): Uint8Array<ArrayBuffer> {
  if (descriptorFormat) return Uint8Array.of(0x72, key, asc, ascq, 0, 0, 0, 0);
  const data = new Uint8Array(FIXED_SENSE_SIZE);
  data[0] = 0x70;
  data[2] = key;
  data[7] = FIXED_SENSE_SIZE - 8;
  data[12] = asc;
  data[13] = ascq;
  return data;
}

/** Ends a command with CHECK CONDITION. */
export class CheckCondition extends Error {
  /** The error's class name. */
  override readonly name = "CheckCondition";
  /** Why. */
  readonly sense: Sense;

  /** With a reason. */
  constructor(sense: Sense) {
    super(`sense ${sense.key.toString(16)}/${sense.asc.toString(16)}/${sense.ascq.toString(16)}`);
    this.sense = sense;
  }
}
