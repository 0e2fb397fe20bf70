/**
 * The sensor protocol.
 *
 * @module
 */

import { ScmiError, type ScmiProtocol, ScmiStatus } from "./protocol.ts";

/** Number of the sensor protocol. */
export const SENSOR = 0x15;

/** What a sensor measures: some of the types of the specification. */
export const ScmiSensorType = {
  NONE: 0,
  CELSIUS: 2,
  VOLTS: 5,
  AMPS: 6,
  WATTS: 7,
  JOULES: 8,
  HERTZ: 19,
} as const;

/** A sensor. */
export interface ScmiSensor {
  /** Up to 15 ASCII characters. */
  readonly name: string;
  /** A value of {@link ScmiSensorType}, or another of the specification, 0 to 255. */
  readonly type: number;
  /** The unit of what is read, as a power of ten: -3 for thousandths; -16 to 15. */
  readonly scale: number;
  /** What it measures, in that unit; rounded. Throw when it cannot: the guest gets HARDWARE_ERROR. */
  read(): number;
}

/** A simulated sensor, in thousandths. */
export class SimulatedSensor implements ScmiSensor {
  /** Its name. */
  readonly name: string;
  /** What it measures. */
  readonly type: number;
  /** Thousandths. */
  readonly scale: number = -3;
  /** What it shows, in whole units. */
  value: number;

  /** Makes one; of degrees Celsius by default. */
  constructor(name: string, value: number, type: number = ScmiSensorType.CELSIUS) {
    this.name = name;
    this.value = value;
    this.type = type;
  }

  /** {@link ScmiSensor.read}. */
  read(): number {
    return this.value * 1000;
  }
}

/** Bytes of a sensor's description. */
const DESCRIPTION = 28;

/**
 * The sensor protocol, version 1.0: descriptions and readings, no trip points.
 *
 * @throws {RangeError} for a sensor that cannot be
 */
export function sensorProtocol(sensors: readonly ScmiSensor[]): ScmiProtocol {
  for (const { name, type, scale } of sensors) {
    if (!/^[ -~]{1,15}$/.test(name)) {
      throw new RangeError(`a sensor's name has 1 to 15 ASCII characters, got ${name}`);
    }
    if (!(type >= 0 && type <= 255)) throw new RangeError(`a sensor's type is 0 to 255, got ${type}`);
    if (!(Number.isInteger(scale) && scale >= -16 && scale <= 15)) {
      throw new RangeError(`a sensor's scale is -16 to 15, got ${scale}`);
    }
  }
  return {
    id: SENSOR,
    version: 0x1_0000,
    // No shared memory with readings: address and length are 0.
    attributes: () => [sensors.length, 0, 0, 0],
    messages: {
      // SENSOR_DESCRIPTION_GET: how many of how many, then each
      3: (parameters, room) => {
        const first = parameters.u32();
        if (first > sensors.length) throw new ScmiError(ScmiStatus.OUT_OF_RANGE);
        const most = Math.max(0, Math.min(0xfff, Math.floor((room - 4) / DESCRIPTION)));
        const some = sensors.slice(first, first + most);
        const left = sensors.length - first - some.length;
        return [
          (some.length | left << 16) >>> 0,
          ...some.flatMap(({ name, type, scale }, i) => [first + i, 0, type | (scale & 0x1f) << 11, name]),
        ];
      },
      // SENSOR_READING_GET
      6: (parameters) => {
        const sensor = sensors[parameters.u32()];
        const flags = parameters.u32();
        if (sensor === undefined) throw new ScmiError(ScmiStatus.NOT_FOUND);
        // Bit 0: the answer may come later, which was not offered.
        if (flags !== 0) throw new ScmiError(ScmiStatus.NOT_SUPPORTED);
        try {
          return [BigInt(Math.round(sensor.read()))];
        } catch (error) {
          throw new ScmiError(
            ScmiStatus.HARDWARE_ERROR,
            `${sensor.name}: ${error instanceof Error ? error.message : error}`,
          );
        }
      },
    },
  };
}
