import { type Chain, defineDevice, type Device } from "../../mod.ts";

/** Numbers of FUSE requests that it knows (linux/fuse.h). */
const INIT = 26;
const GETATTR = 3;
const FORGETS = [2, 42];
const EIO = 5;
const ENOSYS = 38;

/**
 * A file system with an empty root, whose size is how often it was looked at since it was mounted: the least that Linux
 * mounts, and enough to see whether a device's state has moved with its guest.
 */
export class CountingFs {
  /** To be served. */
  readonly device: Device;
  /** States that were saved, and loaded. */
  readonly saved: Uint8Array[] = [];
  readonly loaded: Uint8Array[] = [];
  #mounted = false;
  #looks = 0;

  /** A file system whose state has at least a number of bytes. */
  constructor(stateSize = 16, refuse = false) {
    const serve = (chain: Chain): void => this.#serve(chain);
    this.device = defineDevice({
      type: 26,
      name: "counting fs",
      queues: [serve, serve],
      reset: () => {
        this.#mounted = false;
        this.#looks = 0;
      },
      state: {
        save: () => {
          const state = new Uint8Array(Math.max(8, stateSize));
          // A pattern, so that what is lost or moved on the way is seen.
          for (let i = 8; i < state.length; i++) state[i] = i * 31 + (i >> 8);
          new Uint32Array(state.buffer, 0, 2).set([this.#mounted ? 1 : 0, this.#looks]);
          this.saved.push(state);
          return state;
        },
        load: (state) => {
          if (refuse) throw new Error("not taken");
          this.loaded.push(state.slice());
          const [mounted, looks] = new Uint32Array(state.slice(0, 8).buffer);
          [this.#mounted, this.#looks] = [mounted === 1, looks];
        },
      },
    });
  }

  #serve(chain: Chain): void {
    const request = new DataView(chain.read().buffer);
    const opcode = request.getUint32(4, true);
    if (FORGETS.includes(opcode) || chain.writable.byteLength < 16) return;
    const [error, answer] = this.#answer(opcode);
    const out = new DataView(new ArrayBuffer(16 + answer.byteLength));
    out.setUint32(0, out.byteLength, true);
    out.setInt32(4, -error, true);
    out.setBigUint64(8, request.getBigUint64(8, true), true);
    new Uint8Array(out.buffer).set(new Uint8Array(answer.buffer), 16);
    chain.write(new Uint8Array(out.buffer));
  }

  /** An error number, and a structure where there is none. */
  #answer(opcode: number): [number, DataView<ArrayBuffer>] {
    if (opcode === INIT) {
      this.#mounted = true;
      this.#looks = 0;
      const init = new DataView(new ArrayBuffer(64));
      [7, 31].forEach((version, i) => init.setUint32(4 * i, version, true));
      init.setUint32(20, 4096, true); // max_write
      return [0, init];
    }
    if (!this.#mounted) return [EIO, new DataView(new ArrayBuffer(0))];
    if (opcode !== GETATTR) return [ENOSYS, new DataView(new ArrayBuffer(0))];
    // Valid for no time, so that it is asked for again.
    const attributes = new DataView(new ArrayBuffer(104));
    attributes.setBigUint64(16, 1n, true); // ino
    attributes.setBigUint64(24, BigInt(++this.#looks), true); // size
    attributes.setUint32(76, 0o040755, true); // mode
    attributes.setUint32(80, 2, true); // nlink
    return [0, attributes];
  }
}
