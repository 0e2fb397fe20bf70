/**
 * What is behind an I²C adapter.
 *
 * @module
 */

/** A part of a transaction: what comes between a start condition and the next. */
export interface I2cSegment {
  /** Address, 7 bits; or 10 bits together with `TEN_BIT`. */
  readonly address: number;
  /** Whether the guest reads. */
  readonly reads: boolean;
  /** The bytes written; or room for those to be read, zeroed, to be filled. */
  readonly data: Uint8Array;
}

/** A bus. */
export interface I2cBus {
  /**
   * Carries out a transaction: its segments in order, up to the first that fails. Called in the event loop, which stands
   * still until it returns.
   *
   * @returns how many have succeeded
   */
  transfer(segments: readonly I2cSegment[]): number;
  /** Gives up what it holds; the bus is not used any more. */
  close?(): void;
}

/** A simulated part. */
export interface I2cPart {
  /** Its address, 7 bits (0x08 to 0x77); or 10 bits together with `TEN_BIT`. */
  readonly address: number;
  /**
   * Takes what the guest writes in one segment; of no bytes when it only wants to know who is there.
   *
   * @returns `false` to refuse (NACK), which fails the guest's request; so does an exception
   */
  write(data: Uint8Array): boolean | void;
  /** The next bytes: exactly `length`, 0 or more. */
  read(length: number): Uint8Array;
}

/** A bus of simulated parts. */
export class SimulatedI2cBus implements I2cBus {
  readonly #parts = new Map<number, I2cPart>();
  readonly #onError: (error: unknown) => void;

  /**
   * Plugs parts in.
   *
   * @param onError told of exceptions in a part
   * @throws {RangeError} for two parts at one address, or an address that no part can have
   */
  constructor(parts: Iterable<I2cPart> = [], onError: (error: unknown) => void = () => {}) {
    this.#onError = onError;
    for (const part of parts) this.plug(part);
  }

  /**
   * Plugs a part in.
   *
   * @throws {RangeError} when its address is taken, or none
   */
  plug(part: I2cPart): void {
    const { address } = part;
    const seven = Number.isInteger(address) && address >= 0x08 && address <= 0x77;
    if (!seven && (address & ~0x3ff) !== 0x8000) {
      throw new RangeError(
        `a part's address is 0x08 to 0x77, or TEN_BIT | 0 to 0x3ff; got 0x${address.toString(16)}`,
      );
    }
    if (this.#parts.has(address)) {
      throw new RangeError(`there is a part at 0x${address.toString(16)} already`);
    }
    this.#parts.set(address, part);
  }

  /** Takes a part out; one that is not there is not an error. */
  unplug(part: I2cPart): void {
    if (this.#parts.get(part.address) === part) this.#parts.delete(part.address);
  }

  /** {@link I2cBus.transfer}. */
  transfer(segments: readonly I2cSegment[]): number {
    let done = 0;
    try {
      for (; done < segments.length; done++) {
        const { address, reads, data } = segments[done];
        const part = this.#parts.get(address);
        if (part === undefined) break;
        if (!reads) {
          if (part.write(data) === false) break;
        } else {
          const bytes = part.read(data.length);
          if (bytes.length !== data.length) {
            throw new RangeError(
              `the part at 0x${address.toString(16)} must give ${data.length} bytes, got ${bytes.length}`,
            );
          }
          data.set(bytes);
        }
      }
    } catch (error) {
      this.#onError(error);
    }
    return done;
  }
}
