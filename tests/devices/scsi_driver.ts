import type { TestContext } from "node:test";
import type { FrontEnd, FrontEndOptions } from "../../src/frontend/mod.ts";
import type { DriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import { MemoryStorage, ScsiDevice, scsiFeatures, type ScsiOptions } from "../../src/devices/scsi/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { onEnd } from "../support/cleanup.ts";
import { buffer, filled } from "../session/requests.ts";
import { Scene } from "../session/scene.ts";
import { concat, u32, u64 } from "../session/wire.ts";

const SENSE = 96;
const ANSWER = 12 + SENSE;

/** How a command ended. */
export interface Result {
  readonly response: number;
  readonly status: number;
  /** `key/asc/ascq` in hex; empty without sense data. */
  readonly sense: string;
  readonly residual: number;
  readonly data: Uint8Array;
  /** Bytes that the device says it wrote. */
  readonly used: number;
}

/** What goes along with a command. */
export interface CommandOptions {
  readonly lun?: number;
  readonly target?: number;
  readonly in?: number;
  readonly out?: Uint8Array;
  readonly id?: bigint;
  readonly queue?: number;
}

/** The address of a unit. */
export function address(lun: number, target = 0): Uint8Array {
  return Uint8Array.of(1, target, 0x40 | lun >> 8, lun & 0xff, 0, 0, 0, 0);
}

/** Bytes of a command from numbers and lists of them. */
export function cdb(...bytes: readonly (number | readonly number[])[]): Uint8Array {
  return Uint8Array.from(bytes.flat());
}

/** A number as bytes, the highest first. */
export function be(value: number, length: number): number[] {
  return Array.from({ length }, (_, i) => Math.floor(value / 2 ** (8 * (length - 1 - i))) % 256);
}

/** A host that is served, with its driver. */
export interface ScsiStage {
  readonly host: ScsiDevice;
  readonly scene: Scene;
  readonly driver: ScsiDriver;
}

/** Serves a host; by default with one disk of 1 MiB in memory. The driver has taken the news that the units are there. */
export async function scsiStage(
  t: TestContext,
  options: Partial<ScsiOptions> & FrontEndOptions & { readonly fresh?: boolean } = {},
): Promise<ScsiStage> {
  const host = new ScsiDevice({ units: [{ storage: new MemoryStorage(1 << 20) }], ...options });
  onEnd(t, () => host.close());
  const scene = await Scene.open(t, host);
  const frontEnd = await scene.frontEnd({ deviceFeatures: mask(...Object.values(scsiFeatures)), ...options });
  const memory = scene.memory(64 << 20);
  await frontEnd.shareMemory(memory);
  const queues: DriverQueue[] = [];
  for (let i = 0; i < 4; i++) queues.push(await frontEnd.startQueue(i, memory, { size: 64 }));
  await frontEnd.driverOk();
  const driver = new ScsiDriver(frontEnd, memory, queues);
  if (options.fresh !== true) {
    for (const lun of host.luns) {
      await driver.run(cdb(0, 0, 0, 0, 0, 0), { lun });
    }
  }
  return { host, scene, driver };
}

/** A driver of a SCSI host, on our own front-end. */
export class ScsiDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly control: DriverQueue;
  readonly events: DriverQueue;
  readonly requests: readonly DriverQueue[];

  constructor(frontEnd: FrontEnd, memory: SharedMemory, queues: readonly DriverQueue[]) {
    this.frontEnd = frontEnd;
    this.memory = memory;
    [this.control, this.events] = queues;
    this.requests = queues.slice(2);
  }

  /** One command. */
  async run(command: Uint8Array, options: CommandOptions = {}): Promise<Result> {
    const { lun = 0, target = 0, id = 1n, queue = 0, out, in: room = 0 } = options;
    const bytes = new Uint8Array(51);
    bytes.set(concat(address(lun, target), u64(id)));
    bytes.set(command, 19);
    return await this.raw(bytes, out, room, queue);
  }

  /** A request as given. */
  async raw(request: Uint8Array, out: Uint8Array | undefined, room: number, queue = 0): Promise<Result> {
    const { memory } = this;
    const answer = filled(memory, new Uint8Array(ANSWER).fill(0xee));
    const data = filled(memory, new Uint8Array(room).fill(0xee));
    const used = await this.requests[queue].request(
      [buffer(filled(memory, request)), ...out === undefined ? [] : [buffer(filled(memory, out))]],
      [buffer(answer), ...room === 0 ? [] : [buffer(data)]],
    );
    const view = new DataView(answer.bytes.slice().buffer);
    const length = view.getUint32(0, true);
    const at = (i: number): string => view.getUint8(12 + i).toString(16);
    return {
      response: view.getUint8(11),
      status: view.getUint8(10),
      sense: length === 0 ? "" : `${at(2)}/${at(12)}/${at(13)}`,
      residual: view.getUint32(4, true),
      data: data.bytes.slice(0, Math.max(0, used - ANSWER)),
      used,
    };
  }

  /** Task management. Returns the response. */
  async manage(subtype: number, lun: number, id = 0n, target = 0): Promise<number> {
    const answer = filled(this.memory, Uint8Array.of(0xee));
    const request = concat(u32(0, subtype), address(lun, target), u64(id));
    await this.control.request([buffer(filled(this.memory, request))], [buffer(answer)]);
    return answer.bytes[0];
  }

  /** Puts up a buffer for an event; resolves to event, unit's number and reason. */
  async event(): Promise<{ event: number; lun: number; reason: number }> {
    const room = filled(this.memory, new Uint8Array(16));
    await this.events.request([], [buffer(room)]);
    const view = new DataView(room.bytes.slice().buffer);
    return {
      event: view.getUint32(0, true),
      lun: view.getUint16(6) & 0x3fff,
      reason: view.getUint32(12, true),
    };
  }
}
