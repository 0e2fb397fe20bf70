/**
 * Clocks.
 *
 * @module
 */

import { ClockId, clockTime } from "../../../ffi/clock.ts";
import { RtcClockType, RtcSmearing } from "./layout.ts";

/** A clock that a guest can read. */
export interface RtcClock {
  /** What it shows. */
  readonly type: RtcClockType;
  /** For smeared UTC, how; unspecified by default. */
  readonly smearing?: RtcSmearing;
  /** Whether a guest may set an alarm. */
  readonly alarm: boolean;
  /** Nanoseconds since 1970 (monotonic: since any time before the device's reset), below 2^64. */
  read(): bigint;
  /**
   * A reading with the value that the guest would have read at that time from a counter of its processor.
   *
   * @param counter of `RtcCounter`
   * @returns nothing where that cannot be told; always the same of both for a counter
   */
  cross?(counter: number): { readonly reading: bigint; readonly cycles: bigint } | undefined;
  /** Calls back when the clock was set, which alarms hang on. Returns a function that ends that. */
  watch?(listener: () => void): () => void;
}

/** Seconds that TAI is ahead of UTC, since 2017. */
export const TAI_OFFSET = 37;

/** UTC as this machine has it. It may step. */
export function utcClock(): RtcClock {
  return { type: RtcClockType.UTC, alarm: true, read: () => clockTime(ClockId.REALTIME) };
}

/**
 * UTC as this machine has it, for one whose time server smears leap seconds. Linux makes a `/dev/rtcN` of no other clock.
 *
 * @param smearing how, if known
 */
export function smearedUtcClock(smearing: RtcSmearing = RtcSmearing.UNSPECIFIED): RtcClock {
  return { type: RtcClockType.UTC_SMEARED, smearing, alarm: true, read: () => clockTime(ClockId.REALTIME) };
}

/**
 * International atomic time.
 *
 * @param offset seconds that it is ahead of this machine's UTC
 */
export function taiClock(offset: number = TAI_OFFSET): RtcClock {
  const ahead = BigInt(Math.round(offset * 1e9));
  return { type: RtcClockType.TAI, alarm: false, read: () => clockTime(ClockId.REALTIME) + ahead };
}

/** Time since this machine has started. */
export function monotonicClock(): RtcClock {
  return { type: RtcClockType.MONOTONIC, alarm: false, read: () => clockTime(ClockId.MONOTONIC) };
}

/**
 * A simulated clock: it stands still, or goes as fast as it is told to, and can be set to any time.
 *
 * @example New Year's Eve
 * ```ts
 * import { RtcClockType, RtcDevice, SimulatedClock } from "@vhost/user/devices/rtc";
 *
 * const clock = new SimulatedClock(RtcClockType.UTC_SMEARED, new Date("2030-12-31T23:59:50Z"));
 * const device = new RtcDevice({ clocks: [clock] });
 * clock.advance(15); // Alarms that this passes go off.
 * ```
 */
export class SimulatedClock implements RtcClock {
  /** What it shows. */
  readonly type: RtcClockType;
  /** Whether a guest may set an alarm: always. */
  readonly alarm = true;
  readonly #listeners = new Set<() => void>();
  readonly #rate: number;
  #base: bigint;
  #since: bigint;

  /**
   * Makes one.
   *
   * @param time a date, or nanoseconds
   * @param rate seconds that it shows for each that passes; 0 by default
   * @throws {RangeError} for a rate that is negative or none
   */
  constructor(type: RtcClockType, time: Date | bigint, rate = 0) {
    if (!(rate >= 0 && Number.isFinite(rate))) throw new RangeError(`rate must be 0 or more, got ${rate}`);
    this.type = type;
    this.#rate = rate;
    this.#base = nanoseconds(time);
    this.#since = clockTime(ClockId.MONOTONIC);
  }

  /** {@link RtcClock.read}. */
  read(): bigint {
    const passed = Number(clockTime(ClockId.MONOTONIC) - this.#since);
    return BigInt.asUintN(64, this.#base + BigInt(Math.round(passed * this.#rate)));
  }

  /** Sets it. */
  set(time: Date | bigint): void {
    this.#base = nanoseconds(time);
    this.#since = clockTime(ClockId.MONOTONIC);
    for (const listener of this.#listeners) listener();
  }

  /** Sets it forward by some seconds, or back. */
  advance(seconds: number): void {
    this.set(this.read() + BigInt(Math.round(seconds * 1e9)));
  }

  /** {@link RtcClock.watch}. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

function nanoseconds(time: Date | bigint): bigint {
  return BigInt.asUintN(64, typeof time === "bigint" ? time : BigInt(time.getTime()) * 1_000_000n);
}
