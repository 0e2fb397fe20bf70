/**
 * A command on its way.
 *
 * @module
 */

import { Errno, OsError } from "../../../ffi/os_error.ts";
import { LATER, type Queue } from "../../backend/device.ts";
import type { Span } from "../../memory/span.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { Completion, Storage } from "../storage/storage.ts";
import { CDB_SIZE, REQUEST_SIZE, RESPONSE_SIZE, ScsiResponse } from "./layout.ts";
import type { LogicalUnit } from "./logical_unit.ts";
import { CheckCondition, ScsiStatus, type Sense, senseData, senses } from "./sense.ts";

/** The command wants more data than the request has room for. */
export class Overrun extends Error {
  /** The error's class name. */
  override readonly name = "Overrun";
}

/** What a command gives: nothing when it is done, or a way to learn when. */
export type Pending = void | Promise<void> | typeof LATER;

/** Told when a command is over that was not at once. */
export type Ended = (task: Task) => void;

/** A request and its answer. Kept with the ring slot: nothing is allocated for a command that moves data. */
export class Task implements Completion {
  /** The request. */
  readonly chain: Chain;
  /** The unit that carries it out, when there is one. */
  unit: LogicalUnit | undefined;
  /** What is flushed when the data has been written. */
  flushes: Storage | undefined;
  /** Whether it is a failed write when the storage fails. */
  writes = false;
  /** Instead of the result, when it was aborted: one of {@link ScsiResponse}. */
  aborted = 0;
  /** Where the owner keeps it. */
  place = -1;
  readonly #onEnd: Ended;
  #queue: Queue;
  readonly #request = new DataView(new ArrayBuffer(REQUEST_SIZE + CDB_SIZE));
  #headSize = 0;
  #senseSize = 0;
  #cdbSize = 0;
  #response = 0;
  #status = 0;
  #sense: Uint8Array | undefined;
  #moved = 0;
  #movedIn = 0;
  #waiting: (() => void)[] = [];

  /** For a slot. */
  constructor(chain: Chain, queue: Queue, onEnd: Ended) {
    this.chain = chain;
    this.#queue = queue;
    this.#onEnd = onEnd;
  }

  /** The ring that it came by. */
  get queue(): Queue {
    return this.#queue;
  }

  /**
   * Takes a request: its fixed part is copied once. Returns false when it is too short.
   *
   * @param senseSize bytes of sense data in an answer
   */
  load(queue: Queue, cdbSize: number, senseSize: number): boolean {
    const { readable } = this.chain;
    this.#queue = queue;
    this.unit = this.flushes = this.#sense = undefined;
    this.writes = false;
    this.aborted =
      this.#response =
      this.#status =
      this.#moved =
      this.#movedIn =
        0;
    this.#cdbSize = cdbSize;
    this.#senseSize = senseSize;
    this.#headSize = RESPONSE_SIZE + senseSize;
    if (readable.byteLength < REQUEST_SIZE + cdbSize) return false;
    const request = this.#request;
    const length = REQUEST_SIZE + Math.min(cdbSize, CDB_SIZE);
    let at = 0;
    for (; at + 4 <= length; at += 4) request.setUint32(at, readable.getUint32(at), true);
    for (; at < length; at++) request.setUint8(at, readable.getUint8(at));
    for (; at < request.byteLength; at++) request.setUint8(at, 0);
    return true;
  }

  /** A byte of the address. */
  address(at: number): number {
    return this.#request.getUint8(at);
  }

  /** Whether it goes by this number: the two halves of `id`. */
  isNamed(low: number, high: number): boolean {
    return this.#request.getUint32(8, true) === low && this.#request.getUint32(12, true) === high;
  }

  /** A byte of the command. */
  byte(at: number): number {
    return this.#request.getUint8(REQUEST_SIZE + at);
  }

  /** Two bytes of the command. */
  word(at: number): number {
    return this.#request.getUint16(REQUEST_SIZE + at);
  }

  /** Four bytes of the command. */
  long(at: number): number {
    return this.#request.getUint32(REQUEST_SIZE + at);
  }

  /** Eight bytes of the command; above 2^53 rounded, and so still past the end of any disk. */
  quad(at: number): number {
    return this.long(at) * 0x1_0000_0000 + this.long(at + 4);
  }

  /** Bytes that the driver sends along. */
  get outLength(): number {
    return this.chain.readable.byteLength - REQUEST_SIZE - this.#cdbSize;
  }

  /** Bytes that the driver has room for. */
  get inLength(): number {
    return this.chain.writable.byteLength - this.#headSize;
  }

  /**
   * Room for data to the driver, which will all be filled.
   *
   * @throws {Overrun}
   */
  dataIn(length: number): Span {
    if (length > this.inLength) throw new Overrun();
    this.#moved = this.#movedIn = length;
    return this.chain.data.set(this.chain.writable, this.#headSize, length);
  }

  /**
   * Data of the driver, which will all be used.
   *
   * @throws {Overrun}
   */
  dataOut(length: number): Span {
    if (length > this.outLength) throw new Overrun();
    this.#moved = length;
    return this.chain.data.set(this.chain.readable, REQUEST_SIZE + this.#cdbSize, length);
  }

  /**
   * Data of the driver, as a copy.
   *
   * @throws {Overrun}
   */
  parameters(length: number): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(length);
    this.dataOut(length).copyTo(copy);
    return copy;
  }

  /**
   * Answers with data, cut to what the driver allows.
   *
   * @throws {Overrun}
   */
  answer(data: Uint8Array, allocationLength: number): void {
    if (allocationLength > this.inLength) throw new Overrun();
    const part = data.subarray(0, allocationLength);
    this.dataIn(part.length).copyFrom(part);
  }

  /** It has failed. */
  fail(error: unknown): void {
    if (error instanceof Overrun) this.respond(ScsiResponse.OVERRUN);
    else if (error instanceof CheckCondition) this.check(error.sense);
    else if (error instanceof OsError && error.errno === Errno.ENOSPC) this.check(senses.NO_SPACE);
    else this.check(this.writes ? senses.WRITE_ERROR : senses.READ_ERROR);
  }

  /** CHECK CONDITION. */
  check(sense: Sense): void {
    this.#status = ScsiStatus.CHECK_CONDITION;
    this.#sense = senseData(sense).subarray(0, this.#senseSize);
    this.#moved = this.#movedIn = 0;
  }

  /** It has not come to a unit, or not in one piece. */
  respond(response: number): void {
    this.#response = response;
    this.#moved = this.#movedIn = 0;
  }

  /** {@link Completion.done}. */
  done(error?: unknown): void {
    const storage = this.flushes;
    this.flushes = undefined;
    if (error !== undefined) this.fail(error);
    else if (storage !== undefined) {
      try {
        const pending = storage.flush(this);
        if (pending === LATER) return;
        if (pending !== undefined) return void pending.then(() => this.done(), (error) => this.done(error));
      } catch (error) {
        this.fail(error);
      }
    }
    this.finish();
    this.#queue.complete(this.chain);
    this.#onEnd(this);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** When it is over. */
  whenOver(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Writes the answer. */
  finish(): void {
    const { chain } = this;
    const { writable } = chain;
    if (this.aborted !== 0) {
      this.respond(this.aborted);
      this.#status = ScsiStatus.GOOD;
      this.#sense = undefined;
    }
    const sense = this.#sense;
    const residual = this.inLength + Math.max(0, this.outLength) - this.#moved;
    writable.setUint32(0, sense === undefined ? 0 : sense.length);
    writable.setUint32(4, Math.min(residual, 0xffff_ffff));
    writable.setUint16(8, 0);
    writable.setUint8(10, this.#status);
    writable.setUint8(11, this.#response);
    if (sense !== undefined) writable.copyFrom(sense, RESPONSE_SIZE);
    chain.written = this.#headSize + this.#movedIn;
  }
}
