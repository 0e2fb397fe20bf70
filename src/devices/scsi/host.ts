/**
 * The SCSI host.
 *
 * @module
 */

import {
  Device,
  type DeviceBehaviour,
  LATER,
  type Queue,
  type QueueHandler,
  type QueueOwner,
} from "../../backend/device.ts";
import { has, mask } from "../../protocol/features.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { execute } from "./commands.ts";
import { control, type Tasks } from "./control_queue.ts";
import { EventQueue } from "./event_queue.ts";
import { inquiry } from "./inquiry.ts";
import {
  CDB_SIZE,
  EVENT_SIZE,
  ResetReason,
  RESPONSE_SIZE,
  scsiConfig,
  ScsiEvent,
  scsiFeatures,
  ScsiResponse,
  SENSE_SIZE,
} from "./layout.ts";
import { lunOf, shortLun } from "./lun.ts";
import { LogicalUnit } from "./logical_unit.ts";
import { CheckCondition, type Sense, senseData, senses } from "./sense.ts";
import { type Pending, Task } from "./task.ts";
import { MAX_LUN, ScsiUnit, type ScsiUnitOptions } from "./unit.ts";
import { scsiRequests } from "./request_format.ts";

/** Segments of a request: what fits in a ring of 128 with header and answer, which is QEMU's default. */
const SEG_MAX = 126;
/** Sectors that a request should move: 8 MiB. */
const MAX_SECTORS = 16384;
/** Commands under way for each unit. */
const CMD_PER_LUN = 128;
/** Bounds of what the driver may set in the configuration space, bytes. */
const CDB_SIZES = [16, 260] as const;
const SENSE_SIZES = [18, 252] as const;

const { INQUIRY, REQUEST_SENSE, REPORT_LUNS } = { INQUIRY: 0x12, REQUEST_SENSE: 0x03, REPORT_LUNS: 0xa0 };

/** What a host is made of. */
export interface ScsiOptions {
  /** The disks: units 0, 1 and so on. More may come later, see {@link ScsiDevice.attach}. */
  readonly units: readonly ScsiUnitOptions[];
  /** Most request queues that the front-end may use; 16 by default. QEMU wants as many as the guest has processors. */
  readonly requestQueues?: number;
  /**
   * Whether several front-ends may be connected at once. By default only if all units at the start are read-only: two guests
   * that write to one file system destroy it.
   */
  readonly shared?: boolean;
}

/**
 * A SCSI host with disks (virtio device 8): target 0 with a logical unit for each disk.
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { MemoryStorage, ScsiDevice } from "@vhost/user/devices/scsi";
 *
 * const host = new ScsiDevice({ units: [{ storage: new MemoryStorage(64 * 2 ** 20), id: "scratch" }] });
 * const server = await serve(host, { socketPath: `/tmp/scsi-${crypto.randomUUID()}.sock` });
 * host.attach(1, { storage: new MemoryStorage(2 ** 20), id: "plugged in later" });
 * // … and when it is no longer needed:
 * server.close();
 * host.close();
 * ```
 */
export class ScsiDevice extends Device {
  readonly #units = new Map<number, ScsiUnit>();
  readonly #frontEnds = new Set<ScsiFrontEnd>();

  /**
   * A host with disks, whose storages it owns from here on.
   *
   * @throws {RangeError} for options that cannot be
   */
  constructor({ units, requestQueues = 16, shared }: ScsiOptions) {
    if (!Number.isInteger(requestQueues) || requestQueues < 1 || requestQueues > 254) {
      throw new RangeError(`requestQueues must be 1 to 254, got ${requestQueues}`);
    }
    const made = units.map((options, lun) => new ScsiUnit(lun, options));
    super({
      type: 8,
      name: "scsi",
      requests: scsiRequests,
      features: mask(scsiFeatures.HOTPLUG, scsiFeatures.CHANGE),
      exclusive: !(shared ?? made.every(({ readOnly }) => readOnly)),
      stateless: made.every(({ storage }) => storage.volatile !== true),
      ready: () => [...this.#units.values()].every(({ storage }) => storage.settled ?? true),
      connect: () => {
        const frontEnd = new ScsiFrontEnd(this.#units, requestQueues, () => this.#frontEnds.delete(frontEnd));
        this.#frontEnds.add(frontEnd);
        return frontEnd;
      },
    });
    for (const unit of made) this.#units.set(unit.lun, unit);
  }

  /** The numbers of its units. */
  get luns(): number[] {
    return [...this.#units.keys()].sort((a, b) => a - b);
  }

  /**
   * Plugs a disk in, and tells the guests.
   *
   * @param lun its number, 0 to 16383
   * @throws {RangeError} for options that cannot be, or a number that is taken
   */
  attach(lun: number, options: ScsiUnitOptions): void {
    if (this.#units.has(lun)) throw new RangeError(`unit ${lun} is there already`);
    const unit = new ScsiUnit(lun, options);
    this.#units.set(lun, unit);
    for (const frontEnd of this.#frontEnds) frontEnd.attached(unit);
  }

  /**
   * Takes a disk away, tells the guests, and closes its storage when the last command that uses it is over: then it resolves.
   *
   * @throws {RangeError} for a number that no unit has
   */
  async detach(lun: number): Promise<void> {
    const unit = this.#units.get(lun);
    if (unit === undefined) {
      throw new RangeError(`no unit ${lun}; there are ${this.luns.join(", ") || "none"}`);
    }
    this.#units.delete(lun);
    await Promise.all([...this.#frontEnds].map((frontEnd) => frontEnd.detached(unit)));
    unit.storage.close();
  }

  /**
   * Tells the guests that a storage has another size now.
   *
   * @param lun the unit; all of them by default
   */
  resized(lun?: number): void {
    for (const each of lun === undefined ? this.luns : [lun]) {
      for (const frontEnd of this.#frontEnds) frontEnd.resized(each);
    }
  }

  /** Closes the storages. */
  override close(): void {
    for (const { storage } of this.#units.values()) storage.close();
    this.#units.clear();
  }
}

/** The host as one front-end sees it: the state that the driver sets is its own. */
class ScsiFrontEnd implements DeviceBehaviour, Tasks {
  readonly queues: readonly (QueueHandler | QueueOwner)[];
  readonly config: { read(): Uint8Array; write(offset: number, data: Uint8Array): void };
  readonly disconnected: () => void;
  readonly #units: ReadonlyMap<number, ScsiUnit>;
  readonly #logical = new Map<number, LogicalUnit>();
  readonly #requestQueues: number;
  readonly #events = new EventQueue();
  /** Commands that are under way. */
  readonly #tasks: Task[] = [];
  readonly #onEnd = (task: Task): void => this.#ended(task);
  /** What the driver wants to be told. */
  #hotplug = false;
  #change = false;
  #senseSize = SENSE_SIZE;
  #cdbSize = CDB_SIZE;

  constructor(units: ReadonlyMap<number, ScsiUnit>, requestQueues: number, disconnected: () => void) {
    this.#units = units;
    this.#requestQueues = requestQueues;
    this.disconnected = disconnected;
    this.#powerOn();
    const handle = (chain: Chain, queue: Queue): unknown => this.#handle(chain, queue);
    this.queues = [
      (chain) => control(chain, this),
      this.#events,
      ...new Array<QueueHandler>(requestQueues).fill(handle),
    ];
    this.config = { read: () => this.#config(), write: (offset, data) => this.#setConfig(offset, data) };
  }

  #powerOn(): void {
    this.#logical.clear();
    for (const unit of this.#units.values()) this.#logical.set(unit.lun, new LogicalUnit(unit));
  }

  /** {@link DeviceBehaviour.negotiated}. */
  negotiated(features: bigint): void {
    this.#hotplug = has(features, scsiFeatures.HOTPLUG);
    this.#change = has(features, scsiFeatures.CHANGE);
  }

  /** {@link DeviceBehaviour.reset}. */
  reset(): void {
    this.#senseSize = SENSE_SIZE;
    this.#cdbSize = CDB_SIZE;
    this.#events.reset();
    this.#powerOn();
  }

  #config(): Uint8Array {
    return scsiConfig.encode({
      numQueues: this.#requestQueues,
      segMax: SEG_MAX,
      maxSectors: MAX_SECTORS,
      cmdPerLun: CMD_PER_LUN,
      eventInfoSize: EVENT_SIZE,
      senseSize: this.#senseSize,
      cdbSize: this.#cdbSize,
      maxChannel: 0,
      maxTarget: 0,
      maxLun: MAX_LUN,
    });
  }

  #setConfig(offset: number, data: Uint8Array): void {
    const next = this.#config();
    if (offset + data.length > next.length) {
      throw new RangeError(
        `the configuration space has ${next.length} bytes, got ${data.length} at ${offset}`,
      );
    }
    next.set(data, offset);
    const { senseSize, cdbSize } = scsiConfig.decode(next);
    const [[leastSense, mostSense], [leastCdb, mostCdb]] = [SENSE_SIZES, CDB_SIZES];
    if (senseSize < leastSense || senseSize > mostSense || cdbSize < leastCdb || cdbSize > mostCdb) {
      throw new RangeError(
        `sense_size must be ${leastSense} to ${mostSense} and cdb_size ${leastCdb} to ${mostCdb}, ` +
          `got ${senseSize} and ${cdbSize}`,
      );
    }
    // What else is written must be as it was.
    const { offsets } = scsiConfig;
    const free = (at: number): boolean =>
      (at >= offsets.senseSize && at < offsets.senseSize + 4) ||
      (at >= offsets.cdbSize && at < offsets.cdbSize + 4);
    const changed = this.#config().findIndex((byte, at) => byte !== next[at] && !free(at));
    if (changed >= 0) {
      throw new RangeError(`only sense_size and cdb_size can be written, got another byte ${changed}`);
    }
    this.#senseSize = senseSize;
    this.#cdbSize = cdbSize;
  }

  /** A command. */
  #handle(chain: Chain, queue: Queue): unknown {
    const answerSize = RESPONSE_SIZE + this.#senseSize;
    if (chain.writable.byteLength < answerSize) {
      throw new RangeError(
        `head ${chain.head}: a request needs ${answerSize} writable bytes for its answer, ` +
          `got ${chain.writable.byteLength}`,
      );
    }
    const task = this.#taskOf(chain, queue);
    if (!task.load(queue, this.#cdbSize, this.#senseSize)) {
      task.respond(ScsiResponse.FAILURE);
      return task.finish();
    }
    // Nobody has commands that move data both ways (INOUT).
    if (task.outLength > 0 && task.inLength > 0) {
      task.respond(ScsiResponse.FAILURE);
      return task.finish();
    }
    let pending: Pending = undefined;
    try {
      pending = this.#start(task);
    } catch (error) {
      task.flushes = undefined;
      task.fail(error);
    }
    if (pending === undefined) return task.finish();
    task.place = this.#tasks.push(task) - 1;
    if (pending !== LATER) pending.then(() => task.done(), (error) => task.done(error));
    return LATER;
  }

  #taskOf(chain: Chain, queue: Queue): Task {
    const kept = chain.context;
    if (kept instanceof Task) return kept;
    const made = new Task(chain, queue, this.#onEnd);
    chain.context = made;
    return made;
  }

  #start(task: Task): Pending {
    const lun = lunOf(task.address(0), task.address(1), task.address(2), task.address(3));
    if (lun === -1) return task.respond(ScsiResponse.BAD_TARGET);
    const lu = this.#logical.get(lun);
    task.unit = lu;
    const opcode = task.byte(0);
    if (opcode === REPORT_LUNS) return this.#reportLuns(task);
    if (lu !== undefined) return execute(lu, task);
    if (opcode === INQUIRY) return inquiry(undefined, task);
    if (opcode === REQUEST_SENSE) {
      return task.answer(senseData(senses.NO_SUCH_UNIT, (task.byte(1) & 1) !== 0), task.byte(4));
    }
    throw new CheckCondition(senses.NO_SUCH_UNIT);
  }

  /** REPORT LUNS (SPC-4, section 6.33). */
  #reportLuns(task: Task): void {
    const which = task.byte(2);
    if (which > 2) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
    // Only those with a well-known number: there are none.
    const luns = which === 1 ? [] : [...this.#units.keys()].sort((a, b) => a - b);
    const data = new DataView(new ArrayBuffer(8 + 8 * luns.length));
    data.setUint32(0, 8 * luns.length);
    luns.forEach((lun, i) => data.setUint16(8 + 8 * i, shortLun(lun)));
    task.answer(new Uint8Array(data.buffer), task.long(6));
    for (const lu of this.#logical.values()) lu.forget(senses.UNITS_CHANGED);
  }

  #ended(task: Task): void {
    const last = this.#tasks.pop();
    if (last === undefined || last === task) return;
    this.#tasks[task.place] = last;
    last.place = task.place;
  }

  /** A disk was plugged in. */
  attached(unit: ScsiUnit): void {
    this.#attend(senses.UNITS_CHANGED);
    this.#logical.set(unit.lun, new LogicalUnit(unit));
    if (this.#hotplug) this.#events.send(ScsiEvent.TRANSPORT_RESET, unit.lun, ResetReason.RESCAN);
  }

  /** A disk was taken away. Resolves when nothing uses it any more. */
  async detached(unit: ScsiUnit): Promise<void> {
    this.#logical.delete(unit.lun);
    this.#attend(senses.UNITS_CHANGED);
    if (this.#hotplug) this.#events.send(ScsiEvent.TRANSPORT_RESET, unit.lun, ResetReason.REMOVED);
    await Promise.all(
      this.#tasks.filter((task) => task.unit?.unit === unit).map((task) => task.whenOver()),
    );
  }

  #attend(sense: Sense): void {
    for (const lu of this.#logical.values()) lu.attend(sense);
  }

  /** A disk has another size. */
  resized(lun: number): void {
    const { asc, ascq } = senses.CAPACITY_CHANGED;
    this.#logical.get(lun)?.attend(senses.CAPACITY_CHANGED);
    if (this.#change) this.#events.send(ScsiEvent.PARAM_CHANGE, lun, asc | ascq << 8);
  }

  /** {@link Tasks.locate}. */
  locate(address: Uint8Array): number {
    const lun = lunOf(address[0], address[1], address[2], address[3]);
    return lun === -1 || this.#logical.has(lun) ? lun : -2;
  }

  #matching(lun: number | undefined, name?: readonly [low: number, high: number]): Task[] {
    return this.#tasks.filter((task) =>
      (lun === undefined || task.unit?.unit.lun === lun) && (name === undefined || task.isNamed(...name))
    );
  }

  /** {@link Tasks.has}. */
  has(lun: number, name?: readonly [low: number, high: number]): boolean {
    return this.#matching(lun, name).length > 0;
  }

  /** {@link Tasks.abort}. What a storage has begun cannot be called back, so it waits for that. */
  async abort(
    response: number,
    lun: number | undefined,
    name?: readonly [low: number, high: number],
  ): Promise<void> {
    const tasks = this.#matching(lun, name);
    for (const task of tasks) task.aborted = response;
    await Promise.all(tasks.map((task) => task.whenOver()));
  }

  /** {@link Tasks.resetUnits}. */
  resetUnits(lun: number | undefined): void {
    for (const lu of this.#logical.values()) {
      if (lun === undefined || lu.unit.lun === lun) lu.reset(senses.UNIT_WAS_RESET);
    }
  }
}
