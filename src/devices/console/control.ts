/**
 * The control rings: which ports there are, and what happens to them.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { ConsoleEvent, CONTROL_SIZE } from "./layout.ts";
import type { ConsolePort } from "./port.ts";

/** What the driver is still to be told of a port, a bit each, in the order of telling. */
const Tell = { ADD: 1, CONSOLE: 2, NAME: 4, SIZE: 8, OPEN: 16, CLOSED: 32 } as const;
const ORDER = Object.values(Tell);

/**
 * Talks with the driver. What it is to be told is kept as a few bits for each port, so that a driver that asks and does not
 * read costs nothing.
 */
export class Control {
  /** To the guest. */
  readonly receiver: QueueOwner;
  readonly #ports: readonly ConsolePort[];
  readonly #names: readonly Uint8Array[];
  readonly #tell: Uint8Array;
  #queue: OwnedQueue | undefined;

  /** For these ports. */
  constructor(ports: readonly ConsolePort[]) {
    this.#ports = ports;
    this.#names = ports.map(({ name }) => new TextEncoder().encode(name));
    this.#tell = new Uint8Array(ports.length);
    this.receiver = {
      start: (queue) => void (this.#queue = queue),
      work: (queue) => this.#send(queue),
      stop: () => void (this.#queue = undefined),
    };
  }

  /** A driver begins anew. */
  reset(): void {
    this.#tell.fill(0);
  }

  /** Somebody is at a port's end now, or not any more. */
  connected(port: ConsolePort): void {
    if (!port.ready) return;
    this.#tell[port.id] &= ~(Tell.OPEN | Tell.CLOSED);
    this.#later(port, port.hostOpen ? Tell.OPEN : Tell.CLOSED);
  }

  /** A port's terminal has another size. */
  resized(port: ConsolePort): void {
    if (port.ready && port.isConsole) this.#later(port, Tell.SIZE);
  }

  #later(port: ConsolePort, what: number): void {
    this.#tell[port.id] |= what;
    if (this.#queue !== undefined) this.#send(this.#queue);
  }

  /** Takes a message of the driver. What makes no sense is ignored. */
  take({ readable }: Chain): void {
    if (readable.byteLength < CONTROL_SIZE) return;
    const id = readable.getUint32(0);
    const event = readable.getUint16(4);
    const value = readable.getUint16(6);
    if (event === ConsoleEvent.DEVICE_READY) {
      if (value === 1) this.#tell.fill(Tell.ADD);
    } else if (id < this.#ports.length) {
      const port = this.#ports[id];
      if (event === ConsoleEvent.PORT_READY && value === 1) {
        port.ready = true;
        this.#tell[id] |= (port.isConsole ? Tell.CONSOLE : 0) | (port.name === "" ? 0 : Tell.NAME) |
          (port.isConsole && port.columns > 0 ? Tell.SIZE : 0) | (port.hostOpen ? Tell.OPEN : 0);
      } else if (event === ConsoleEvent.PORT_OPEN) {
        port.guestOpen = value === 1;
      }
    }
    if (this.#queue !== undefined) this.#send(this.#queue);
  }

  #send(queue: OwnedQueue): void {
    for (let id = 0; id < this.#ports.length; id++) {
      for (let i = 0; this.#tell[id] !== 0 && i < ORDER.length; i++) {
        if ((this.#tell[id] & ORDER[i]) === 0) continue;
        const chain = queue.take();
        if (chain === null) return;
        this.#tell[id] &= ~ORDER[i];
        this.#write(chain, this.#ports[id], ORDER[i]);
        queue.complete(chain);
      }
    }
  }

  /** Writes a message; into a buffer that is too small for it, nothing. */
  #write(chain: Chain, port: ConsolePort, what: number): void {
    const { writable } = chain;
    const name = this.#names[port.id];
    const more = what === Tell.NAME ? name.length : what === Tell.SIZE ? 4 : 0;
    if (writable.byteLength < CONTROL_SIZE + more) return;
    writable.setUint32(0, port.id);
    writable.setUint16(4, eventOf(what));
    writable.setUint16(6, what === Tell.CLOSED ? 0 : 1);
    if (what === Tell.NAME) writable.copyFrom(name, CONTROL_SIZE);
    if (what === Tell.SIZE) {
      writable.setUint16(CONTROL_SIZE, port.columns);
      writable.setUint16(CONTROL_SIZE + 2, port.rows);
    }
    chain.written = CONTROL_SIZE + more;
  }
}

function eventOf(what: number): number {
  switch (what) {
    case Tell.ADD:
      return ConsoleEvent.PORT_ADD;
    case Tell.CONSOLE:
      return ConsoleEvent.CONSOLE_PORT;
    case Tell.NAME:
      return ConsoleEvent.PORT_NAME;
    case Tell.SIZE:
      return ConsoleEvent.RESIZE;
    default:
      return ConsoleEvent.PORT_OPEN;
  }
}
