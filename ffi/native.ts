/**
 * Small pieces of memory at a known address, for the structures that system calls read and write.
 *
 * @module
 */

import { addressOf } from "./deno.ts";

/** Whether this machine stores the low byte first; every supported one does, the codec still asks. */
export const littleEndian: boolean = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Memory of this process with its address. Allocate once and keep: an allocation is costly. */
export class Native {
  /** The memory. */
  readonly buffer: ArrayBuffer;
  /** The same, for reading and writing fields. */
  readonly view: DataView;
  /** The same, as bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Address of the first byte. */
  readonly address: bigint;

  /** Allocates `byteLength` zeroed bytes. */
  constructor(byteLength: number) {
    this.buffer = new ArrayBuffer(byteLength);
    this.view = new DataView(this.buffer);
    this.bytes = new Uint8Array(this.buffer);
    this.address = addressOf(this.buffer);
  }

  /** The strings of late, see {@link string}. */
  static readonly #recent: Native[] = [];

  /**
   * A zero-terminated string. The last few stay whether anybody has them or not: whoever passes but the address of one to a
   * function has nothing that keeps its memory until the function reads it.
   */
  static string(text: string): Native {
    if (text.includes("\0")) throw new TypeError(`string with a zero byte: ${JSON.stringify(text)}`);
    const bytes = new TextEncoder().encode(text);
    const native = new Native(bytes.length + 1);
    native.bytes.set(bytes);
    if (Native.#recent.push(native) > 16) Native.#recent.shift();
    return native;
  }

  /** Stores a signed or unsigned 32-bit number at a byte offset. */
  set32(offset: number, value: number): void {
    this.view.setInt32(offset, value | 0, littleEndian);
  }

  /** Stores a 64-bit number at a byte offset. */
  set64(offset: number, value: bigint): void {
    this.view.setBigUint64(offset, BigInt.asUintN(64, value), littleEndian);
  }

  /** The signed 32-bit number at a byte offset. */
  get32(offset: number): number {
    return this.view.getInt32(offset, littleEndian);
  }

  /** The unsigned 64-bit number at a byte offset. */
  get64(offset: number): bigint {
    return this.view.getBigUint64(offset, littleEndian);
  }
}
