/**
 * The clock protocol.
 *
 * @module
 */

import {
  ScmiError,
  type ScmiHandler,
  type ScmiParameters,
  type ScmiProtocol,
  ScmiStatus,
} from "./protocol.ts";

/** Number of the clock protocol. */
export const CLOCK = 0x14;

/** The rates that a clock can have: from one to another in steps, Hz. */
export interface ScmiRates {
  /** Lowest. */
  readonly min: number;
  /** Highest, up to 2^53. */
  readonly max: number;
  /** From one to the next. */
  readonly step: number;
}

/** What a clock is made of. */
export interface SimulatedClockOptions {
  /** Up to 15 ASCII characters. */
  readonly name: string;
  /** Rates that it can have; one that cannot change has just {@link rate}. */
  readonly rates?: ScmiRates;
  /** Its rate, Hz. */
  readonly rate: number;
  /** Whether it runs; not by default. */
  readonly enabled?: boolean;
  /** Called when the guest has changed it. */
  readonly onChange?: (clock: SimulatedScmiClock) => void;
}

/** A simulated clock that drives a part: it runs or not, at a rate. */
export class SimulatedScmiClock {
  /** Its name. */
  readonly name: string;
  /** Rates that it can have. */
  readonly rates: ScmiRates;
  /** Its rate, Hz. */
  rate: number;
  /** Whether it runs. */
  enabled: boolean;
  /** Called when the guest has changed it. */
  readonly onChange: (clock: SimulatedScmiClock) => void;

  /**
   * Makes one.
   *
   * @throws {RangeError} for a name or rates that cannot be
   */
  constructor(options: SimulatedClockOptions) {
    const { name, rate, rates = { min: rate, max: rate, step: 0 }, enabled = false, onChange = () => {} } =
      options;
    if (!/^[ -~]{1,15}$/.test(name)) {
      throw new RangeError(`a clock's name has 1 to 15 ASCII characters, got ${name}`);
    }
    const { min, max, step } = rates;
    if (
      ![min, max, step, rate].every((each) => Number.isSafeInteger(each) && each >= 0) || min > rate ||
      rate > max
    ) {
      throw new RangeError(
        `${name}: rates are whole numbers of Hz with min <= rate <= max, got ${min}, ${rate}, ${max}`,
      );
    }
    this.name = name;
    this.rates = rates;
    this.rate = rate;
    this.enabled = enabled;
    this.onChange = onChange;
  }
}

/** Bit of the flags of CLOCK_RATE_SET: rounded up. */
const ROUND_UP = 4;
/** Bit of the flags of CLOCK_RATE_SET: rounded to the nearest. */
const ROUND_AUTO = 8;
/** Bit of the number of rates: lowest, highest and step. */
const TRIPLET = 1 << 12;

/** The rate that a clock can have which is next to another. */
function rounded({ min, max, step }: ScmiRates, rate: bigint, flags: number): number {
  if (rate <= BigInt(min) || step === 0) return min;
  const wanted = rate >= BigInt(max) ? max : Number(rate);
  const steps = (wanted - min) / step;
  const whole = (flags & ROUND_AUTO) !== 0
    ? Math.round(steps)
    : (flags & ROUND_UP) !== 0
    ? Math.ceil(steps)
    : Math.floor(steps);
  return Math.min(max, min + whole * step);
}

/** The clock protocol, version 1.0. */
export function clockProtocol(clocks: readonly SimulatedScmiClock[]): ScmiProtocol {
  const of = (parameters: ScmiParameters): SimulatedScmiClock => {
    const clock = clocks[parameters.u32()];
    if (clock === undefined) throw new ScmiError(ScmiStatus.NOT_FOUND);
    return clock;
  };
  const setRate: ScmiHandler = (parameters) => {
    const flags = parameters.u32();
    const clock = of(parameters);
    const rate = parameters.u64();
    // Bits 0 and 1: the answer may come later, which was not offered.
    if ((flags & 3) !== 0) throw new ScmiError(ScmiStatus.NOT_SUPPORTED);
    clock.rate = rounded(clock.rates, rate, flags);
    clock.onChange(clock);
    return [];
  };
  return {
    id: CLOCK,
    version: 0x1_0000,
    attributes: () => [clocks.length],
    messages: {
      // CLOCK_ATTRIBUTES
      3: (parameters) => {
        const clock = of(parameters);
        return [clock.enabled ? 1 : 0, clock.name];
      },
      // CLOCK_DESCRIBE_RATES
      4: (parameters) => {
        const { rates: { min, max, step } } = of(parameters);
        if (parameters.u32() !== 0) throw new ScmiError(ScmiStatus.OUT_OF_RANGE);
        return step === 0 ? [1, BigInt(min)] : [3 | TRIPLET, BigInt(min), BigInt(max), BigInt(step)];
      },
      // CLOCK_RATE_SET
      5: setRate,
      // CLOCK_RATE_GET
      6: (parameters) => [BigInt(of(parameters).rate)],
      // CLOCK_CONFIG_SET
      7: (parameters) => {
        const clock = of(parameters);
        const attributes = parameters.u32();
        if (attributes > 1) throw new ScmiError(ScmiStatus.INVALID_PARAMETERS);
        clock.enabled = attributes === 1;
        clock.onChange(clock);
        return [];
      },
    },
  };
}
