/**
 * A temperature sensor.
 *
 * @module
 */

import type { I2cPart } from "./bus.ts";

const TEMPERATURE = 0;
const CONFIGURATION = 1;
/** Degrees of one step of the register's upper 11 bits. */
const STEP = 0.125;

/**
 * A temperature sensor of the LM75 family (LM75A, with eighths of a degree): four registers behind a pointer, for
 * temperature, configuration, hysteresis and limit.
 */
export class Lm75 implements I2cPart {
  /** Its address. */
  readonly address: number;
  readonly #registers = [0, 0, 75, 80].map((value) => value << 8);
  #pointer = TEMPERATURE;

  /**
   * Makes one.
   *
   * @param address 0x48 by default, the first that these parts can have
   * @param celsius the temperature
   */
  constructor(address = 0x48, celsius = 25) {
    this.address = address;
    this.temperature = celsius;
  }

  /** Degrees Celsius, in steps of an eighth. */
  get temperature(): number {
    return (this.#registers[TEMPERATURE] << 16 >> 21) * STEP;
  }

  /**
   * Sets the temperature.
   *
   * @throws {RangeError} outside of −128 to 127.875 °C
   */
  set temperature(celsius: number) {
    const steps = Math.round(celsius / STEP);
    if (!(steps >= -1024 && steps <= 1023)) {
      throw new RangeError(`a temperature is -128 to 127.875 degrees Celsius, got ${celsius}`);
    }
    this.#registers[TEMPERATURE] = (steps & 0x7ff) << 5;
  }

  /** Whether it is above the limit that the guest has set; the pin OS says that, until it is below the hysteresis. */
  get overLimit(): boolean {
    return this.temperature >= (this.#registers[3] << 16 >> 16) / 256;
  }

  /** {@link I2cPart.write}. */
  write(bytes: Uint8Array): boolean {
    if (bytes.length === 0) return true;
    const pointer = this.#pointer = bytes[0] & 3;
    if (bytes.length === 1 || pointer === TEMPERATURE) return true;
    if (pointer === CONFIGURATION) this.#registers[pointer] = bytes[1] << 8;
    else this.#registers[pointer] = (bytes[1] << 8 | (bytes[2] ?? 0)) & 0xff80;
    return true;
  }

  /** {@link I2cPart.read}. */
  read(length: number): Uint8Array {
    const value = this.#registers[this.#pointer];
    const narrow = this.#pointer === CONFIGURATION;
    return Uint8Array.from({ length }, (_, i) => narrow || i % 2 === 0 ? value >>> 8 : value & 0xff);
  }
}
