/**
 * Numbers of the RTC device (virtio 1.4, section 5.23; Linux `virtio_rtc.h`).
 *
 * @module
 */

/** Feature bits of the device type. */
export const rtcFeatures = { ALARM: 0 } as const;

/** Kinds of request, and of notification. */
export const RtcMessage = {
  READ: 0x0001,
  READ_CROSS: 0x0002,
  CFG: 0x1000,
  CLOCK_CAP: 0x1001,
  CROSS_CAP: 0x1002,
  READ_ALARM: 0x1003,
  SET_ALARM: 0x1004,
  SET_ALARM_ENABLED: 0x1005,
  NOTIF_ALARM: 0x2000,
} as const;

/** First byte of an answer. */
export const RtcStatus = { OK: 0, EOPNOTSUPP: 2, ENODEV: 3, EINVAL: 4, EIO: 5 } as const;

/** What a clock shows. */
export const RtcClockType = { UTC: 0, TAI: 1, MONOTONIC: 2, UTC_SMEARED: 3, UTC_MAYBE_SMEARED: 4 } as const;
/** A value of {@link RtcClockType}. */
export type RtcClockType = typeof RtcClockType[keyof typeof RtcClockType];

/** How a clock that shows smeared UTC goes about a leap second. */
export const RtcSmearing = { UNSPECIFIED: 0, NOON_LINEAR: 1, UTC_SLS: 2 } as const;
/** A value of {@link RtcSmearing}. */
export type RtcSmearing = typeof RtcSmearing[keyof typeof RtcSmearing];

/** Counters of a processor that a reading can be related to. */
export const RtcCounter = { ARM_VCT: 0, X86_TSC: 1, INVALID: 0xff } as const;

/** Bit of the flags of CLOCK_CAP: the clock has an alarm. */
export const ALARM_CAP = 1;
/** Bit of the flags of CROSS_CAP. */
export const CROSS_CAP = 1;
/** Bit of an alarm's flags. */
export const ALARM_ENABLED = 1;

/** Bytes of an alarm's notification: u16 msg_type, 6 reserved, u16 clock_id, 6 reserved. */
export const NOTIFICATION_SIZE = 16;
