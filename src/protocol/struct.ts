/**
 * Structures in memory, declared once: size, layout, reading, writing and the TypeScript type.
 *
 * @module
 */

import { FieldError } from "./error.ts";

/** Byte order of a structure's fields. */
export type Endianness = "little" | "big";

/** The byte order of this machine, which vhost-user messages use. */
export const nativeEndianness: Endianness = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1
  ? "little"
  : "big";

/** How one field lies in memory. */
export interface Field<T> {
  /** Bytes. */
  readonly size: number;
  /** Its offset is rounded up to a multiple of this, as a C compiler does. */
  readonly align: number;
  /** Reads it. */
  get(view: DataView, offset: number, little: boolean): T;
  /** Writes it. */
  set(view: DataView, offset: number, value: T, little: boolean): void;
}

function whole(value: number, bits: number): number {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits) {
    throw new FieldError("value", `an unsigned ${bits}-bit integer`, value);
  }
  return value;
}

/** Unsigned, 8 bits. */
export const u8: Field<number> = {
  size: 1,
  align: 1,
  get: (view, offset) => view.getUint8(offset),
  set: (view, offset, value) => view.setUint8(offset, whole(value, 8)),
};

/** Unsigned, 16 bits. */
export const u16: Field<number> = {
  size: 2,
  align: 2,
  get: (view, offset, little) => view.getUint16(offset, little),
  set: (view, offset, value, little) => view.setUint16(offset, whole(value, 16), little),
};

/** Unsigned, 32 bits. */
export const u32: Field<number> = {
  size: 4,
  align: 4,
  get: (view, offset, little) => view.getUint32(offset, little),
  set: (view, offset, value, little) => view.setUint32(offset, whole(value, 32), little),
};

/** Unsigned, 64 bits. */
export const u64: Field<bigint> = {
  size: 8,
  align: 8,
  get: (view, offset, little) => view.getBigUint64(offset, little),
  set: (view, offset, value, little) => {
    if (BigInt.asUintN(64, value) !== value) {
      throw new FieldError("value", "an unsigned 64-bit integer", value);
    }
    view.setBigUint64(offset, value, little);
  },
};

/** Signed, 64 bits. */
export const i64: Field<bigint> = {
  size: 8,
  align: 8,
  get: (view, offset, little) => view.getBigInt64(offset, little),
  set: (view, offset, value, little) => {
    if (BigInt.asIntN(64, value) !== value) throw new FieldError("value", "a signed 64-bit integer", value);
    view.setBigInt64(offset, value, little);
  },
};

/** A fixed number of bytes; read as a copy, written zero-padded. */
export function bytes(size: number): Field<Uint8Array> {
  return {
    size,
    align: 1,
    get: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, size).slice(),
    set: (view, offset, value) => {
      if (value.length > size) {
        throw new FieldError("value", `at most ${size} bytes`, `${value.length} bytes`);
      }
      const target = new Uint8Array(view.buffer, view.byteOffset + offset, size);
      target.fill(0);
      target.set(value);
    },
  };
}

/** A fixed number of 64-bit numbers. */
export function u64Array(length: number): Field<bigint[]> {
  return {
    size: 8 * length,
    align: 8,
    get: (view, offset, little) =>
      Array.from({ length }, (_, i) => view.getBigUint64(offset + 8 * i, little)),
    set: (view, offset, value, little) => {
      if (value.length !== length) throw new FieldError("value", `${length} numbers`, value.length);
      value.forEach((each, i) => u64.set(view, offset + 8 * i, each, little));
    },
  };
}

/** The fields of a structure, in order. */
export type Fields<T> = { readonly [K in keyof T]-?: Field<T[K]> };

/**
 * A structure laid out as a C compiler on a 64-bit machine does: each field at a multiple of its alignment, the whole
 * padded to a multiple of the largest.
 *
 * @example
 * ```ts
 * import { Struct, u16, u32 } from "@vhost/user/virtqueue";
 *
 * const event = new Struct<{ type: number; code: number; value: number }>({ type: u16, code: u16, value: u32 });
 * const bytes = event.encode({ type: 1, code: 30, value: 1 });
 * if (bytes.length !== 8 || event.decode(bytes).code !== 30) throw new Error("unexpected layout");
 * ```
 */
export class Struct<T> {
  /** Bytes, with all padding. */
  readonly size: number;
  /** Byte offset of each field. */
  readonly offsets: { readonly [K in keyof T]: number };
  readonly #fields: Fields<T>;
  readonly #endianness: Endianness;

  /**
   * Lays the fields out.
   *
   * @param fields name and kind of each field, in order
   * @param endianness little by default, the order of virtio structures
   */
  constructor(fields: Fields<T>, endianness: Endianness = "little") {
    const offsets: Partial<Record<keyof T, number>> = {};
    let at = 0;
    let align = 1;
    for (const name of Object.keys(fields) as (keyof T & string)[]) {
      const field = fields[name];
      at = Math.ceil(at / field.align) * field.align;
      offsets[name] = at;
      at += field.size;
      align = Math.max(align, field.align);
    }
    this.size = Math.ceil(at / align) * align;
    this.offsets = offsets as { readonly [K in keyof T]: number };
    this.#fields = fields;
    this.#endianness = endianness;
  }

  /** The names of the fields, in order. */
  get names(): (keyof T & string)[] {
    return Object.keys(this.#fields) as (keyof T & string)[];
  }

  /**
   * Reads a structure at a byte offset.
   *
   * @param endianness the structure's own by default
   */
  read(view: DataView, offset = 0, endianness: Endianness = this.#endianness): T {
    const value: Partial<T> = {};
    const little = endianness === "little";
    for (const name of this.names) {
      value[name] = this.#fields[name].get(view, offset + this.offsets[name], little);
    }
    return value as T;
  }

  /**
   * Writes a structure at a byte offset. Padding is left as it is.
   *
   * @param endianness the structure's own by default
   * @throws {FieldError} when a value does not fit
   */
  write(view: DataView, offset: number, value: T, endianness: Endianness = this.#endianness): void {
    const little = endianness === "little";
    for (const name of this.names) {
      try {
        this.#fields[name].set(view, offset + this.offsets[name], value[name], little);
      } catch (error) {
        if (error instanceof FieldError) error.message = error.message.replace(/^value/, name);
        throw error;
      }
    }
  }

  /**
   * A structure as new bytes.
   *
   * @param endianness the structure's own by default
   * @throws {FieldError} when a value does not fit
   */
  encode(value: T, endianness: Endianness = this.#endianness): Uint8Array<ArrayBuffer> {
    const target = new Uint8Array(this.size);
    this.write(new DataView(target.buffer), 0, value, endianness);
    return target;
  }

  /**
   * A structure from bytes; surplus bytes are ignored.
   *
   * @param endianness the structure's own by default
   * @throws {FieldError} when there are too few
   */
  decode(source: Uint8Array, endianness: Endianness = this.#endianness): T {
    if (source.length < this.size) {
      throw new FieldError("structure", `at least ${this.size} bytes`, `${source.length} bytes`);
    }
    return this.read(new DataView(source.buffer, source.byteOffset, source.byteLength), 0, endianness);
  }
}
