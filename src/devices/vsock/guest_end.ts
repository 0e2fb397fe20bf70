/**
 * Another guest at the other end of a connection.
 *
 * @module
 */

import type { Segments } from "../../memory/segments.ts";
import type { Circuit, CircuitEnd, VsockError } from "./circuit.ts";
import { MessageFlag, ShutdownFlag } from "./layout.ts";
import type { Receiver } from "./receiver.ts";

/**
 * Joins the connections of two guests. Each guest has its own credit with this process, so that one that does not read
 * keeps only those waiting that send to it.
 */
export function join(one: Circuit, other: Circuit): void {
  const [a, b] = [new GuestEnd(one, other), new GuestEnd(other, one)];
  a.opposite = b;
  b.opposite = a;
  one.end = a;
  other.end = b;
}

class GuestEnd implements CircuitEnd {
  opposite: GuestEnd | undefined;
  readonly #circuit: Circuit;
  readonly #other: Circuit;
  /** Where the other guest's buffers are, once it had some. */
  #receiver: Receiver | undefined;

  constructor(circuit: Circuit, other: Circuit) {
    this.#circuit = circuit;
    this.#other = other;
  }

  opened(): void {
    this.#other.accept();
  }

  take(payload: Segments, position: number, length: number): number {
    const receiver = this.opposite?.receiverNow;
    const credit = receiver === undefined ? 0 : Math.min(this.#other.credit, length);
    const taken = receiver === undefined ? 0 : receiver.forward(this.#other, payload, position, credit);
    if (taken < length) this.#other.offer();
    return taken;
  }

  /** Buffers of this circuit's guest, when it may be sent to at once. */
  get receiverNow(): Receiver | undefined {
    return this.#circuit.direct ? this.#receiver : undefined;
  }

  drain(): void {
    this.#other.offer();
  }

  send(receiver: Receiver, credit: number): boolean {
    this.#receiver = receiver;
    const { buffer } = this.#other;
    let left = credit;
    while (left > 0) {
      const whole = this.#other.seqpacket ? buffer.messageLength : buffer.length;
      if (whole < 0 || (whole === 0 && !this.#other.seqpacket)) {
        this.#circuit.withdraw();
        return true;
      }
      if (whole > this.#circuit.peerBuffer && this.#other.seqpacket) {
        this.#other.reset();
        return true;
      }
      const piece = buffer.front(Math.min(whole, left));
      const sent = receiver.put(this.#circuit, piece, piece.length === whole ? this.#flags() : 0);
      if (sent < 0) return false;
      left -= sent;
      if (this.#other.seqpacket) {
        if (sent === whole) buffer.unmark();
        else buffer.unmark(sent);
      }
      this.#other.consumed(sent);
      // A message of no bytes takes no credit, but a turn.
      if (sent === 0) return true;
    }
    return true;
  }

  #flags(): number {
    const { buffer, seqpacket } = this.#other;
    if (!seqpacket) return 0;
    return MessageFlag.END_OF_MESSAGE | (buffer.endsRecord ? MessageFlag.END_OF_RECORD : 0);
  }

  ended(): void {
    this.#other.finish(ShutdownFlag.SEND);
  }

  refused(): void {
    this.#other.finish(ShutdownFlag.RECEIVE);
  }

  over(error: VsockError | undefined): void {
    if (error === undefined) this.#other.finish(ShutdownFlag.BOTH);
    else this.#other.reset();
  }
}
