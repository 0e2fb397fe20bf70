/**
 * Writes down what tests prove: preloaded into every test and into every process of ours that a test starts, and idle
 * unless there is a folder for evidence. It wraps methods of the library, which knows nothing of it.
 *
 * @module
 */

import { mkdirSync } from "node:fs";
import process from "node:process";
import { Connection, type Message } from "../../src/transport/connection.ts";
import { DirtyLog } from "../../src/memory/dirty_log.ts";
import { Descriptors } from "../../src/virtqueue/descriptors.ts";
import { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { DriverQueue } from "../../src/frontend/driver_queue.ts";
import { PackedDriverRing } from "../../src/frontend/packed_driver_ring.ts";
import { FrontEnd } from "../../src/frontend/front_end.ts";
import { type Confined, Confinement } from "../../ffi/confinement.ts";
import { appendLine } from "./process_of.ts";
import { SESSIONS } from "./record.ts";
import { destination } from "./destination.ts";
import { Witnesses } from "./witness.ts";

const to = destination(import.meta.url, process);
if (to !== undefined) {
  if (!to.exists) mkdirSync(to.folder, { recursive: true });
  record(to.folder, to.test);
}

function record(folder: string, test: string): void {
  const written = new Set<string>();
  const witnesses = new Witnesses((record) => {
    const line = JSON.stringify({ test, ...record });
    // A test may have a thousand sessions of which one looks like the other.
    if (!written.has(line)) appendLine(`${folder}/${SESSIONS}`, line);
    written.add(line);
  });
  leaveFiles();
  watchConnections(witnesses);
  watchRings(witnesses);
  watchDrivers(witnesses);
}

/** What a test proves is written to files, and the peer's program is one. The rest of the sandbox stays. */
function leaveFiles(): void {
  const { enter } = Confinement.prototype;
  Confinement.prototype.enter = function (): Promise<Confined> {
    return enter.call(new Confinement({ ...this.needs, files: "any" }));
  };
}

function watchConnections(witnesses: Witnesses): void {
  const { receive, send, close } = Connection.prototype;
  Connection.prototype.receive = function (): Message | null | "end" {
    // Whoever comes back for the next message has handled the last without an error.
    witnesses.idle(this);
    const message = receive.call(this);
    if (message !== null && message !== "end") witnesses.see(this, "in", message);
    return message;
  };
  Connection.prototype.send = function (request, flags, payload, fds): void {
    const { tap } = this;
    this.tap = (direction, message) => {
      witnesses.see(this, direction, message);
      tap?.(direction, message);
    };
    try {
      send.call(this, request, flags, payload, fds);
    } finally {
      this.tap = tap;
    }
  };
  Connection.prototype.close = function (): void {
    witnesses.close(this);
    close.call(this);
  };
}

/**
 * Rings do not know their session, so they count where there is one session only. What has been seen of that need not be
 * seen again: the methods are then what they were, until something changes.
 */
function watchRings(witnesses: Witnesses): void {
  const rings = [SplitRing.prototype, PackedRing.prototype];
  const pushes = rings.map(({ push }) => push);
  const { appendLinked, appendPacked } = Descriptors.prototype;
  const { mark } = DirtyLog.prototype;
  witnesses.onChange = () => {
    rings.forEach((ring, i) => {
      ring.push = function (chain): void {
        ring.push = pushes[i];
        ring.push.call(this, chain);
        witnesses.only?.complete(ring === PackedRing.prototype);
      };
    });
    const indirect = (): void => {
      Object.assign(Descriptors.prototype, { appendLinked, appendPacked });
      if (witnesses.only !== undefined) witnesses.only.indirect = true;
    };
    Descriptors.prototype.appendLinked = function (...descriptor): void {
      appendLinked.apply(this, descriptor);
      indirect();
    };
    Descriptors.prototype.appendPacked = function (...descriptor): void {
      appendPacked.apply(this, descriptor);
      indirect();
    };
    DirtyLog.prototype.mark = function (guestAddress, length): void {
      DirtyLog.prototype.mark = mark;
      mark.call(this, guestAddress, length);
      if (witnesses.only !== undefined) witnesses.only.logged = true;
    };
  };
}

function watchDrivers(witnesses: Witnesses): void {
  const queues = new WeakMap<DriverQueue, { readonly frontEnd: FrontEnd; readonly tables: boolean }>();
  const { startQueue } = FrontEnd.prototype;
  FrontEnd.prototype.startQueue = async function (index, memory, options = {}): Promise<DriverQueue> {
    const queue = await startQueue.call(this, index, memory, options);
    queues.set(queue, { frontEnd: this, tables: (options.tableSize ?? 0) > 0 });
    return queue;
  };
  const { collect } = DriverQueue.prototype;
  DriverQueue.prototype.collect = function (): number {
    const count = collect.call(this);
    const queue = count === 0 ? undefined : queues.get(this);
    // The session may be another than at the start of the queue.
    const witness = queue === undefined ? undefined : witnesses.of(queue.frontEnd.connection);
    witness?.complete(this.ring instanceof PackedDriverRing);
    if (witness !== undefined && queue?.tables === true) witness.indirect = true;
    return count;
  };
}
