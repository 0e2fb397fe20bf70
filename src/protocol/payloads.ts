/**
 * Every payload of the protocol (vhost-user, "Message Specification: Payload"; paddings as QEMU sends them).
 *
 * @module
 */

import { checkAligned, checkNoWrap, checkOneOf, type Codec, none, structure } from "./codec.ts";
import { FieldError } from "./error.ts";
import { bytes, i64, nativeEndianness, Struct, u16, u32, u64, u64Array, u8 } from "./struct.ts";

/** State of a ring: what `num` means depends on the message. */
export interface VringState {
  /** Ring. */
  readonly index: number;
  /** Entries (SET_VRING_NUM), 0 or 1 (SET_VRING_ENABLE, SET_VRING_ENDIAN), an index (…_VRING_BASE), else 0. */
  readonly num: number;
}

/** Which ring a descriptor belongs to, and whether there is one. */
export interface VringDescriptor {
  /** Ring, 0 to 255. */
  readonly index: number;
  /** Whether no descriptor came along: the ring is polled (KICK), or nobody wants to be told (CALL, ERR). */
  readonly noDescriptor: boolean;
}

/** Where the parts of a ring are. Note the order: used comes before available. */
export interface VringAddress {
  /** Ring. */
  readonly index: number;
  /** Bit 0: log writes to the used ring. */
  readonly flags: number;
  /** Descriptor table (split) or ring (packed); a multiple of 16. */
  readonly descriptor: bigint;
  /** Used ring (split) or device event suppression (packed); a multiple of 4. */
  readonly used: bigint;
  /** Available ring (split) or driver event suppression (packed); a multiple of 2. */
  readonly available: bigint;
  /** Guest address with which writes to the used ring are logged. */
  readonly log: bigint;
}

/** A piece of guest memory in a file. */
export interface MemoryRegion {
  /** Guest physical address of the first byte. */
  readonly guestAddress: bigint;
  /** Bytes, more than 0. */
  readonly size: bigint;
  /** Address of the first byte in the front-end. */
  readonly userAddress: bigint;
  /** Offset of the first byte in the file. */
  readonly mmapOffset: bigint;
}

/** A {@link MemoryRegion} under XEN_MMAP. */
export interface XenMemoryRegion extends MemoryRegion {
  /** Bit 0 foreign, bit 1 grant, bit 8 do not map in advance. */
  readonly xenMmapFlags: number;
  /** Xen domain. */
  readonly domainId: number;
}

/** The dirty log in shared memory. */
export interface Log {
  /** Bytes. */
  readonly size: bigint;
  /** Offset in the file. */
  readonly offset: bigint;
}

/** An entry of the IOTLB, or a question about one. */
export interface Iotlb {
  /** I/O virtual address. */
  readonly iova: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** Address in the front-end; guest physical under GPA_ADDRESSES. */
  readonly userAddress: bigint;
  /** 0 none, 1 read, 2 write, 3 both. */
  readonly permission: number;
  /** 1 miss, 2 update, 3 invalidate, 4 access failure. */
  readonly type: number;
}

/** Kinds of {@link Iotlb} message. */
export const IotlbType = { MISS: 1, UPDATE: 2, INVALIDATE: 3, ACCESS_FAIL: 4 } as const;

/** A part of the device's configuration space. */
export interface Config {
  /** Offset of the first byte. */
  readonly offset: number;
  /** 0 written by the guest, 1 by live migration. */
  readonly flags: number;
  /** The bytes; a GET_CONFIG request has as many dummy ones as it asks for. */
  readonly data: Uint8Array;
}

/** The largest configuration space, bytes. */
export const MAX_CONFIG = 256;

/** A ring's doorbell page in a file. */
export interface VringArea {
  /** Ring. */
  readonly index: number;
  /** Whether no descriptor came along: the doorbell is taken away. */
  readonly noDescriptor: boolean;
  /** Bytes. */
  readonly size: bigint;
  /** Offset in the file. */
  readonly offset: bigint;
}

/** The buffer that records requests in flight. */
export interface Inflight {
  /** Bytes; 0 when asking. */
  readonly mmapSize: bigint;
  /** Offset in the file. */
  readonly mmapOffset: bigint;
  /** Rings. */
  readonly numQueues: number;
  /** Entries of each ring. */
  readonly queueSize: number;
}

/** How the internal state of a device is transferred. */
export interface DeviceState {
  /** 0 save (to the front-end), 1 load (from it). */
  readonly direction: number;
  /** 0: the device is stopped. */
  readonly phase: number;
}

/** Descriptor and outcome of SET_DEVICE_STATE_FD. */
export interface DeviceStateReply {
  /** 0 success. */
  readonly error: number;
  /** Whether the front-end's descriptor is to be used (always so with an error). */
  readonly noDescriptor: boolean;
}

/** A mapping in a shared memory region. */
export interface ShmemMapping {
  /** Region. */
  readonly shmid: number;
  /** Offset in the file. */
  readonly fdOffset: bigint;
  /** Offset in the region. */
  readonly shmOffset: bigint;
  /** Bytes. */
  readonly length: bigint;
  /** Bit 0: writable. */
  readonly flags: bigint;
}

/** Sizes of a device's shared memory regions. */
export interface ShmemConfig {
  /** Regions that have a size. */
  readonly numRegions: number;
  /** Bytes of each of the 256 regions by id, 0 for none. */
  readonly sizes: readonly bigint[];
}

/** A crypto session to create (device-specific; QEMU's structure of 1072 bytes). */
export interface CryptoSession {
  /** Virtio opcode. */
  readonly opCode: bigint;
  /** Session parameters: 48 + 64 + 512 bytes symmetric, 32 + 1024 asymmetric. */
  readonly session: Uint8Array;
  /** In the reply: 0 or more, or negative for failure. */
  readonly sessionId: bigint;
}

/** Every kind of payload, by the name that the message table uses. */
export interface PayloadTypes {
  /** Nothing. */
  none: void;
  /** A number or a mask. */
  u64: bigint;
  /** {@link VringState}. */
  vringState: VringState;
  /** {@link VringDescriptor}. */
  vringDescriptor: VringDescriptor;
  /** {@link VringAddress}. */
  vringAddress: VringAddress;
  /** The regions of a whole table. */
  memoryRegions: readonly MemoryRegion[];
  /** One region. */
  memoryRegion: MemoryRegion;
  /** One region, or eight zero bytes: during postcopy, "your addresses were understood". */
  addedRegion: MemoryRegion | undefined;
  /** {@link Log}. */
  log: Log;
  /** {@link Iotlb}. */
  iotlb: Iotlb;
  /** {@link Config}. */
  config: Config;
  /** {@link VringArea}. */
  vringArea: VringArea;
  /** {@link Inflight}. */
  inflight: Inflight;
  /** 16 bytes, RFC 4122 order. */
  uuid: Uint8Array;
  /** The same, or `undefined` where it was left out: QEMU (11.1) asks for a shared object without saying which. */
  requestedUuid: Uint8Array | undefined;
  /** {@link DeviceState}. */
  deviceState: DeviceState;
  /** {@link DeviceStateReply}. */
  deviceStateReply: DeviceStateReply;
  /** {@link ShmemMapping}. */
  shmemMapping: ShmemMapping;
  /** {@link ShmemConfig}. */
  shmemConfig: ShmemConfig;
  /** {@link CryptoSession}. */
  cryptoSession: CryptoSession;
}

/** Bit 8 of a number that names a ring: no descriptor came along. */
const NO_DESCRIPTOR = 0x100n;

const little = nativeEndianness === "little";

const number64: Codec<bigint> = {
  minimum: 8,
  maximum: 8,
  encode: (value) => new Struct<{ value: bigint }>({ value: u64 }, nativeEndianness).encode({ value }),
  decode: (payload) => u64.get(new DataView(payload.buffer, payload.byteOffset), 0, little),
};

/** A codec on top of another. */
function mapped<A, B>(inner: Codec<A>, to: (value: A) => B, from: (value: B) => A): Codec<B> {
  return {
    minimum: inner.minimum,
    maximum: inner.maximum,
    encode: (value) => inner.encode(from(value)),
    decode: (payload) => to(inner.decode(payload)),
  };
}

function ringOf(value: bigint): VringDescriptor {
  if (value > 0x1ffn) throw new FieldError("ring", "a number of 8 bits and flag bit 8", value);
  return { index: Number(value & 0xffn), noDescriptor: (value & NO_DESCRIPTOR) !== 0n };
}

function numberOf({ index, noDescriptor }: VringDescriptor): bigint {
  if (!Number.isInteger(index) || index < 0 || index > 255) throw new FieldError("ring", "0 to 255", index);
  return BigInt(index) | (noDescriptor ? NO_DESCRIPTOR : 0n);
}

const regionFields = { guestAddress: u64, size: u64, userAddress: u64, mmapOffset: u64 };
const region = new Struct<MemoryRegion>(regionFields, nativeEndianness);

/** Layout of one region under XEN_MMAP; never offered outside Xen. */
export const xenMemoryRegion: Struct<XenMemoryRegion> = new Struct<XenMemoryRegion>(
  { ...regionFields, xenMmapFlags: u32, domainId: u32 },
  nativeEndianness,
);

function checkRegion(value: MemoryRegion): MemoryRegion {
  if (value.size === 0n) throw new FieldError("region size", "more than 0", value.size);
  checkNoWrap("region guest address", value.guestAddress, value.size);
  checkNoWrap("region user address", value.userAddress, value.size);
  checkNoWrap("region mmap offset", value.mmapOffset, value.size);
  return value;
}

/** The most regions of one SET_MEM_TABLE: 8 in the standard, 32 from crosvm. */
export const MAX_REGIONS = 32;

/** User-Mode Linux 6.1 and 6.12 send 72 bytes for one region, so surplus bytes are let pass. */
const memoryRegions: Codec<readonly MemoryRegion[]> = {
  minimum: 8,
  maximum: 8 + MAX_REGIONS * region.size,
  encode: (regions) => {
    const target = new Uint8Array(8 + regions.length * region.size);
    const view = new DataView(target.buffer);
    view.setUint32(0, regions.length, little);
    regions.forEach((each, i) => region.write(view, 8 + i * region.size, each));
    return target;
  },
  decode: (payload) => {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const count = view.getUint32(0, little);
    const padding = view.getUint32(4, little);
    if (padding !== 0) throw new FieldError("padding", "0", padding);
    if (count > MAX_REGIONS) throw new FieldError("number of regions", `at most ${MAX_REGIONS}`, count);
    const needed = 8 + count * region.size;
    if (payload.length < needed) {
      throw new FieldError("payload", `${needed} bytes for ${count} regions`, `${payload.length} bytes`);
    }
    return Array.from({ length: count }, (_, i) => checkRegion(region.read(view, 8 + i * region.size)));
  },
};

const memoryRegion: Codec<MemoryRegion> = {
  minimum: 8 + region.size,
  // Xen's form is 8 bytes longer; what follows the region is let pass.
  maximum: 8 + xenMemoryRegion.size,
  encode: (value) => {
    const target = new Uint8Array(8 + region.size);
    region.write(new DataView(target.buffer), 8, value);
    return target;
  },
  decode: (payload) => checkRegion(region.decode(payload.subarray(8))),
};

const addedRegion: Codec<MemoryRegion | undefined> = {
  minimum: 8,
  maximum: memoryRegion.maximum,
  encode: (value) => value === undefined ? new Uint8Array(8) : memoryRegion.encode(value),
  decode: (payload) => {
    if (payload.length === 8) return undefined;
    if (payload.length < memoryRegion.minimum) {
      throw new FieldError(
        "payload",
        `${memoryRegion.minimum} bytes, or 8 during postcopy`,
        `${payload.length} bytes`,
      );
    }
    return memoryRegion.decode(payload);
  },
};

const uuid: Codec<Uint8Array> = mapped(
  structure<{ uuid: Uint8Array }>({ uuid: bytes(16) }),
  ({ uuid }) => uuid,
  (uuid) => ({ uuid }),
);

const requestedUuid: Codec<Uint8Array | undefined> = {
  minimum: 0,
  maximum: uuid.maximum,
  encode: (value) => value === undefined ? new Uint8Array(0) : uuid.encode(value),
  decode: (payload) => {
    if (payload.length === 0) return undefined;
    if (payload.length < uuid.minimum) {
      throw new FieldError("payload", `${uuid.minimum} bytes, or none`, `${payload.length} bytes`);
    }
    return uuid.decode(payload);
  },
};

const configHeader = new Struct<{ offset: number; size: number; flags: number }>(
  { offset: u32, size: u32, flags: u32 },
  nativeEndianness,
);

const config: Codec<Config> = {
  minimum: configHeader.size,
  maximum: configHeader.size + MAX_CONFIG,
  encode: ({ offset, flags, data }) => {
    const target = new Uint8Array(configHeader.size + data.length);
    configHeader.write(new DataView(target.buffer), 0, { offset, size: data.length, flags });
    target.set(data, configHeader.size);
    return target;
  },
  decode: (payload) => {
    const { offset, size, flags } = configHeader.decode(payload);
    if (size > MAX_CONFIG || offset > MAX_CONFIG || offset + size > MAX_CONFIG) {
      throw new FieldError("configuration range", `within ${MAX_CONFIG} bytes`, `${offset} + ${size}`);
    }
    if (payload.length - configHeader.size !== size) {
      const present = payload.length - configHeader.size;
      // A reply of size 0 says that the back-end has failed; a request may leave the dummy bytes out.
      if (present !== 0) throw new FieldError("configuration data", `${size} bytes`, `${present} bytes`);
      return { offset, flags, data: new Uint8Array(size) };
    }
    return { offset, flags, data: payload.slice(configHeader.size) };
  },
};

/** Payload kind → codec. */
export const payloads: { readonly [K in keyof PayloadTypes]: Codec<PayloadTypes[K]> } = {
  none,
  u64: number64,
  vringState: structure<VringState>({ index: u32, num: u32 }),
  vringDescriptor: mapped(number64, ringOf, numberOf),
  vringAddress: structure<VringAddress>(
    { index: u32, flags: u32, descriptor: u64, used: u64, available: u64, log: u64 },
    (value) => {
      checkOneOf("flags", value.flags, [0, 1]);
      checkAligned("descriptor address", value.descriptor, 16n);
      checkAligned("used address", value.used, 4n);
      checkAligned("available address", value.available, 2n);
    },
  ),
  memoryRegions,
  memoryRegion,
  addedRegion,
  log: structure<Log>(
    { size: u64, offset: u64 },
    (value) => checkNoWrap("log offset", value.offset, value.size),
  ),
  iotlb: structure<Iotlb>({ iova: u64, size: u64, userAddress: u64, permission: u8, type: u8 }, (value) => {
    checkOneOf("permission", value.permission, [0, 1, 2, 3]);
    checkOneOf("type", value.type, [1, 2, 3, 4]);
    checkNoWrap("iova", value.iova, value.size);
    checkNoWrap("user address", value.userAddress, value.size);
  }),
  config,
  vringArea: mapped(
    structure<{ ring: bigint; size: bigint; offset: bigint }>({ ring: u64, size: u64, offset: u64 }),
    ({ ring, size, offset }) => ({ ...ringOf(ring), size, offset }),
    ({ size, offset, ...ring }) => ({ ring: numberOf(ring), size, offset }),
  ),
  inflight: structure<Inflight>(
    { mmapSize: u64, mmapOffset: u64, numQueues: u16, queueSize: u16 },
    (value) => {
      checkNoWrap("mmap offset", value.mmapOffset, value.mmapSize);
      if (value.numQueues === 0) throw new FieldError("number of queues", "more than 0", 0);
      if (value.queueSize === 0) throw new FieldError("queue size", "more than 0", 0);
    },
  ),
  uuid,
  requestedUuid,
  deviceState: structure<DeviceState>({ direction: u32, phase: u32 }, (value) => {
    checkOneOf("direction", value.direction, [0, 1]);
    checkOneOf("phase", value.phase, [0]);
  }),
  deviceStateReply: mapped(
    number64,
    (value) => ({ error: Number(value & 0xffn), noDescriptor: (value & NO_DESCRIPTOR) !== 0n }),
    ({ error, noDescriptor }) => BigInt(error) | (noDescriptor ? NO_DESCRIPTOR : 0n),
  ),
  shmemMapping: mapped(
    structure<{ shmid: number; fdOffset: bigint; shmOffset: bigint; length: bigint; flags: bigint }>(
      { shmid: u8, fdOffset: u64, shmOffset: u64, length: u64, flags: u64 },
      (value) => {
        if (value.flags > 1n) throw new FieldError("flags", "0 or 1", value.flags);
        checkNoWrap("file offset", value.fdOffset, value.length);
        checkNoWrap("region offset", value.shmOffset, value.length);
      },
    ),
    (value) => value,
    (value: ShmemMapping) => value,
  ),
  shmemConfig: structure<ShmemConfig>({ numRegions: u32, sizes: u64Array(256) }),
  cryptoSession: structure<CryptoSession>({ opCode: u64, session: bytes(1056), sessionId: i64 }),
};

/** The codec of a kind that is known only at run time, as a row of the message table gives it. */
export function codecOf(kind: keyof PayloadTypes): Codec<unknown> {
  return payloads[kind] as Codec<unknown>;
}
