/**
 * The RTC device.
 *
 * @module
 */

import { Device } from "../../backend/device.ts";
import { has, mask } from "../../protocol/features.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { RtcAlarms } from "./alarms.ts";
import { monotonicClock, type RtcClock, smearedUtcClock, taiClock, utcClock } from "./clock.ts";
import {
  ALARM_CAP,
  ALARM_ENABLED,
  CROSS_CAP,
  RtcClockType,
  RtcCounter,
  rtcFeatures,
  RtcMessage,
  RtcSmearing,
  RtcStatus,
} from "./layout.ts";
import { rtcRequests } from "./request_format.ts";

/** What an RTC device is made of. */
export interface RtcOptions {
  /** The clocks, by number; by default this machine's: UTC, smeared UTC, TAI and monotonic time. */
  readonly clocks?: readonly RtcClock[];
  /** Told of exceptions in a clock; the guest's request has failed then. */
  readonly onError?: (error: unknown) => void;
}

/** Clocks for virtual machines (virtio device 17). Alarms are each guest's own, and end with a reset. */
export class RtcDevice extends Device {
  /**
   * Makes one.
   *
   * @throws {RangeError} for more clocks than there are numbers
   */
  constructor(options: RtcOptions = {}) {
    const { onError = () => {} } = options;
    const clocks = options.clocks ?? [utcClock(), smearedUtcClock(), taiClock(), monotonicClock()];
    if (clocks.length > 0xffff) {
      throw new RangeError(`an RTC device has up to 65535 clocks, got ${clocks.length}`);
    }
    super({
      type: 17,
      name: "rtc",
      requests: rtcRequests,
      features: clocks.some(({ alarm }) => alarm) ? mask(rtcFeatures.ALARM) : 0n,
      connect: () => {
        const alarms = new RtcAlarms(clocks, onError);
        const requests = new RtcRequests(clocks, alarms, onError);
        return {
          queues: [(chain) => requests.handle(chain), alarms],
          negotiated: (features) => requests.alarmsNegotiated = has(features, rtcFeatures.ALARM),
          reset: () => alarms.clear(),
          disconnected: () => alarms.close(),
        };
      },
    });
  }
}

/** Bytes of a request and of its answer. */
const SIZES: Readonly<Record<number, readonly [request: number, response: number]>> = {
  [RtcMessage.READ]: [16, 16],
  [RtcMessage.READ_CROSS]: [16, 24],
  [RtcMessage.CFG]: [8, 16],
  [RtcMessage.CLOCK_CAP]: [16, 16],
  [RtcMessage.CROSS_CAP]: [16, 16],
  [RtcMessage.READ_ALARM]: [16, 24],
  [RtcMessage.SET_ALARM]: [24, 8],
  [RtcMessage.SET_ALARM_ENABLED]: [16, 8],
};
const HEAD = 8;
const LARGEST = 24;

/** Answers a guest's requests. */
class RtcRequests {
  /** Whether the driver has accepted ALARM. */
  alarmsNegotiated = false;
  readonly #clocks: readonly RtcClock[];
  readonly #alarms: RtcAlarms;
  readonly #onError: (error: unknown) => void;
  readonly #request = new DataView(new ArrayBuffer(LARGEST));
  readonly #response = new DataView(new ArrayBuffer(LARGEST));

  constructor(clocks: readonly RtcClock[], alarms: RtcAlarms, onError: (error: unknown) => void) {
    this.#clocks = clocks;
    this.#alarms = alarms;
    this.#onError = onError;
  }

  handle(chain: Chain): void {
    const { readable, writable } = chain;
    const response = new Uint8Array(this.#response.buffer);
    response.fill(0);
    // Copied once: the guest may change it.
    const length = readable.copyTo(new Uint8Array(this.#request.buffer));
    const type = length >= 2 ? this.#request.getUint16(0, true) : -1;
    const [request, answer] = SIZES[type] ?? [HEAD, HEAD];
    let status: number = RtcStatus.EINVAL;
    if (length >= request && writable.byteLength >= answer) {
      try {
        status = this.#carryOut(type);
      } catch (error) {
        this.#onError(error);
        status = RtcStatus.EIO;
      }
    }
    if (status !== RtcStatus.OK) response.fill(0);
    response[0] = status;
    chain.write(response.subarray(0, answer));
  }

  /** Fills the answer behind its head. Returns the status. */
  #carryOut(type: number): number {
    const request = this.#request;
    const response = this.#response;
    if (SIZES[type] === undefined) return RtcStatus.EOPNOTSUPP;
    if (type === RtcMessage.CFG) {
      response.setUint16(HEAD, this.#clocks.length, true);
      return RtcStatus.OK;
    }
    const isAlarm = type >= RtcMessage.READ_ALARM;
    if (isAlarm && !this.alarmsNegotiated) return RtcStatus.EOPNOTSUPP;
    const number = request.getUint16(type === RtcMessage.SET_ALARM ? 16 : 8, true);
    const clock = this.#clocks[number];
    if (clock === undefined) return RtcStatus.ENODEV;
    if (isAlarm) return clock.alarm ? this.#alarm(type, number) : RtcStatus.EOPNOTSUPP;
    switch (type) {
      case RtcMessage.READ:
        response.setBigUint64(HEAD, clock.read(), true);
        return RtcStatus.OK;
      case RtcMessage.CLOCK_CAP:
        response.setUint8(HEAD, clock.type);
        if (clock.type === RtcClockType.UTC_SMEARED) {
          response.setUint8(HEAD + 1, clock.smearing ?? RtcSmearing.UNSPECIFIED);
        }
        response.setUint8(HEAD + 2, this.alarmsNegotiated && clock.alarm ? ALARM_CAP : 0);
        return RtcStatus.OK;
      default:
        return this.#cross(type, clock, request.getUint8(10));
    }
  }

  #cross(type: number, clock: RtcClock, counter: number): number {
    if (counter === RtcCounter.INVALID) return RtcStatus.EINVAL;
    const response = this.#response;
    const both = clock.cross?.(counter);
    if (type === RtcMessage.CROSS_CAP) {
      const known = counter === RtcCounter.ARM_VCT || counter === RtcCounter.X86_TSC;
      if (!known && both === undefined) return RtcStatus.EOPNOTSUPP;
      response.setUint8(HEAD, both === undefined ? 0 : CROSS_CAP);
      return RtcStatus.OK;
    }
    if (both === undefined) return RtcStatus.EOPNOTSUPP;
    response.setBigUint64(HEAD, both.reading, true);
    response.setBigUint64(HEAD + 8, both.cycles, true);
    return RtcStatus.OK;
  }

  #alarm(type: number, number: number): number {
    const request = this.#request;
    const { time, enabled } = this.#alarms.get(number);
    if (type === RtcMessage.READ_ALARM) {
      this.#response.setBigUint64(HEAD, time, true);
      this.#response.setUint8(HEAD + 8, enabled ? ALARM_ENABLED : 0);
      return RtcStatus.OK;
    }
    const isNew = type === RtcMessage.SET_ALARM;
    const flags = request.getUint8(isNew ? 18 : 10);
    if ((flags & ~ALARM_ENABLED) !== 0) return RtcStatus.EINVAL;
    this.#alarms.set(number, isNew ? request.getBigUint64(8, true) : time, flags === ALARM_ENABLED);
    return RtcStatus.OK;
  }
}
