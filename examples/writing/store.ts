/**
 * A device of one's own: a key-value store, which `serve_store.ts` serves. Of the page docs/writing-a-device.md.
 *
 * @module
 */

import {
  defineDevice,
  type Device,
  type DeviceBehaviour,
  type OwnedQueue,
  type QueueOwner,
} from "@vhost/user";
import { type Chain, Struct, u16, u32 } from "@vhost/user/virtqueue";

/** The configuration space: how many entries there are, and whether the driver wants events. */
export const Config = new Struct<{ entries: number; watch: number }>({ entries: u32, watch: u32 });
/** What a request begins with; the key and the value follow. */
export const Header = new Struct<{ op: number; keyLength: number }>({ op: u16, keyLength: u16 });
export const Op = { GET: 0, SET: 1 } as const;
/** The first byte of an answer; after OK to a GET the value follows. */
export const Status = { OK: 0, NOT_FOUND: 1, INVALID: 2, FAILED: 3 } as const;

const MAX_REQUEST = 4096;
const MAX_ENTRIES = 1000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function answer(chain: Chain, status: number, value = ""): void {
  chain.write(Uint8Array.of(status));
  chain.write(encoder.encode(value));
}

/** The event queue: the driver lends buffers, and gets one back for each change. */
class Events implements QueueOwner {
  watch = 0;
  #queue: OwnedQueue | undefined;

  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = undefined;
  }

  send(key: string): void {
    if (this.watch === 0) return;
    const chain = this.#queue?.take();
    if (!chain) return; // The driver has lent none: it hears less.
    chain.write(encoder.encode(key));
    this.#queue?.complete(chain);
  }
}

/** A key-value store, for any number of guests. */
export class Store {
  readonly device: Device;
  readonly #save: (key: string, value: string) => unknown;
  readonly #entries = new Map<string, string>();
  readonly #events = new Set<Events>();

  /** `save` is called with each change by a guest, which waits for it. */
  constructor(save: (key: string, value: string) => unknown = () => {}) {
    this.#save = save;
    this.device = defineDevice({ type: 22, name: "store", connect: () => this.#connect() });
  }

  get(key: string): string | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: string): void {
    const { size } = this.#entries;
    this.#entries.set(key, value);
    if (this.#entries.size !== size) this.device.configChanged();
    for (const events of this.#events) events.send(key);
  }

  #handle(chain: Chain): unknown {
    if (chain.readable.byteLength > MAX_REQUEST) return answer(chain, Status.INVALID);
    const { op, keyLength } = chain.readStruct(Header);
    const keyBytes = chain.read(keyLength);
    const key = decoder.decode(keyBytes);
    if (key === "" || keyBytes.length < keyLength) return answer(chain, Status.INVALID);
    switch (op) {
      case Op.GET: {
        const value = this.#entries.get(key);
        return value === undefined ? answer(chain, Status.NOT_FOUND) : answer(chain, Status.OK, value);
      }
      case Op.SET:
        return this.#saveAndSet(chain, key, decoder.decode(chain.read()));
      default:
        return answer(chain, Status.INVALID);
    }
  }

  async #saveAndSet(chain: Chain, key: string, value: string): Promise<void> {
    if (this.#entries.size >= MAX_ENTRIES && !this.#entries.has(key)) return answer(chain, Status.FAILED);
    try {
      await this.#save(key, value);
    } catch (error) {
      answer(chain, Status.FAILED);
      throw error;
    }
    this.set(key, value);
    answer(chain, Status.OK);
  }

  #connect(): DeviceBehaviour {
    const events = new Events();
    this.#events.add(events);
    return {
      queues: [(chain) => this.#handle(chain), events],
      config: {
        read: () => Config.encode({ entries: this.#entries.size, watch: events.watch }),
        write: (offset, data) => {
          const bytes = Config.encode({ entries: 0, watch: events.watch });
          bytes.set(data, offset);
          events.watch = Config.decode(bytes).watch;
        },
      },
      state: {
        save: () => encoder.encode(JSON.stringify({ watch: events.watch, entries: [...this.#entries] })),
        load: (bytes) => {
          const { watch, entries } = JSON.parse(decoder.decode(bytes));
          events.watch = Number(watch);
          for (const [key, value] of entries) this.#entries.set(String(key), String(value));
        },
      },
      reset: () => events.watch = 0,
      disconnected: () => this.#events.delete(events),
    };
  }
}
