/**
 * A device's internal state on its way to or from another back-end (vhost-user, "Migrating backend state").
 *
 * @module
 */

import { PipeEnd } from "../../ffi/pipe.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { bytes, Struct, u32, u64 } from "../protocol/struct.ts";

/** Saves and loads a device's state. */
export interface StateKeeper {
  /** The state as bytes. The device stays usable: the migration may be cancelled. */
  save(): Uint8Array | Promise<Uint8Array>;
  /** Takes a state over. Throw when it cannot be understood. */
  load(state: Uint8Array): void | Promise<void>;
}

/** A state that cannot be taken over. */
export class DeviceStateError extends Error {
  /** The error's class name. */
  override readonly name = "DeviceStateError";
}

const MAGIC = 0x53445556; // "VUDS"
const FORMAT = 1;
/** What stands before the state: who wrote it, how long it is, and its SHA-256. */
const frame = new Struct<
  { magic: number; format: number; device: number; length: bigint; sha256: Uint8Array }
>({
  magic: u32,
  format: u32,
  device: u32,
  length: u64,
  sha256: bytes(32),
});

async function digest(state: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(state)));
}

/** A state with its frame. */
export async function frameState(device: number, state: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const framed = new Uint8Array(frame.size + state.length);
  framed.set(frame.encode({
    magic: MAGIC,
    format: FORMAT,
    device,
    length: BigInt(state.length),
    sha256: await digest(state),
  }));
  framed.set(state, frame.size);
  return framed;
}

/**
 * The state within its frame.
 *
 * @throws {DeviceStateError} when it is not one, of another device or format, cut off, too long or damaged
 */
export async function unframeState(device: number, framed: Uint8Array): Promise<Uint8Array> {
  if (framed.length < frame.size) {
    throw new DeviceStateError(`device state of ${framed.length} bytes: its frame alone has ${frame.size}`);
  }
  const head = frame.decode(framed);
  if (head.magic !== MAGIC) {
    throw new DeviceStateError(`no device state: it starts with 0x${head.magic.toString(16)}`);
  }
  if (head.format !== FORMAT) {
    throw new DeviceStateError(`device state format must be ${FORMAT}, got ${head.format}`);
  }
  if (head.device !== device) {
    throw new DeviceStateError(`device state of virtio device ${head.device}, expected ${device}`);
  }
  const state = framed.subarray(frame.size);
  if (BigInt(state.length) !== head.length) {
    throw new DeviceStateError(`device state has ${state.length} bytes, its frame says ${head.length}`);
  }
  const sum = await digest(state);
  if (!sum.every((byte, i) => byte === head.sha256[i])) {
    throw new DeviceStateError("device state is damaged (SHA-256)");
  }
  return state;
}

/**
 * One transfer. It starts at once and runs beside everything else; CHECK_DEVICE_STATE asks for its outcome. The rings are
 * stopped meanwhile.
 */
export class StateTransfer {
  /** Resolves when all was written, or all was read and taken over. */
  readonly outcome: Promise<void>;
  readonly #end: PipeEnd;
  readonly #most: number;

  /**
   * Takes over a descriptor: the end of a pipe, or a socket.
   *
   * @param most bytes that are loaded
   * @throws {RangeError} when it is something else; it is closed then
   */
  constructor(
    direction: "save" | "load",
    fd: number,
    device: number,
    keeper: StateKeeper,
    reactor: Reactor,
    most: number,
  ) {
    this.#end = new PipeEnd(fd, reactor);
    this.#most = most;
    this.outcome = (direction === "save" ? this.#save(device, keeper) : this.#load(device, keeper))
      // When it was saved, the reader sees the end.
      .finally(() => this.#end.close());
    // It may fail before anybody asks.
    this.outcome.catch(() => {});
  }

  /** Gives up: another transfer starts, or the front-end has left. */
  cancel(): void {
    this.#end.close(new DeviceStateError("the transfer was given up"));
  }

  async #save(device: number, keeper: StateKeeper): Promise<void> {
    await this.#end.writeAll(await frameState(device, await keeper.save()));
  }

  async #load(device: number, keeper: StateKeeper): Promise<void> {
    const framed = await this.#end.readToEnd(this.#most);
    if (framed.length > this.#most) {
      throw new DeviceStateError(`device state must have at most ${this.#most} bytes (limit state)`);
    }
    await keeper.load(await unframeState(device, framed));
  }
}
