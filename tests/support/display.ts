import { close, readBytes } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { send } from "../../ffi/socket.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { setNonblocking } from "../../ffi/fd.ts";
import { defineDevice, type Device } from "../../mod.ts";

/** What a display is asked for and told on its socket, by number: "Vhost-user-gpu Protocol". */
export const ask = {
  GET_PROTOCOL_FEATURES: 1,
  GET_DISPLAY_INFO: 3,
  SCANOUT: 7,
  UPDATE: 8,
  GET_EDID: 11,
} as const;

/** VIRTIO_GPU_F_EDID. */
const EDID = 1n << 1n;
/** Bytes of a header: number, flags, size. */
const HEADER = 12;
const REPLY = 4;
/** How long an answer may take, ms. */
const PATIENCE = 20_000;

/** A graphics device of one scanout that draws what the test says, not what a driver does. */
export class Display {
  /** To be served. */
  readonly device: Device;
  /** The socket of the front-end's display; owned here. */
  socket: number | undefined;

  constructor() {
    this.device = defineDevice({
      type: 16,
      name: "display",
      features: EDID,
      queues: [() => {}, () => {}],
      config: { read: () => new Uint8Array(Uint32Array.of(0, 0, 1, 0).buffer) },
      setGpuSocket: (fd) => {
        this.close();
        setNonblocking(fd);
        this.socket = fd;
      },
    });
  }

  /** Closes the socket. */
  close(): void {
    if (this.socket !== undefined) close(this.socket);
    this.socket = undefined;
  }

  /** Tells the display something. */
  async tell(number: number, ...words: readonly (number | Uint8Array)[]): Promise<void> {
    const payload = words.map((word) =>
      typeof word === "number" ? new Uint8Array(Uint32Array.of(word).buffer) : word
    );
    const size = payload.reduce((sum, { length }) => sum + length, 0);
    const native = new Native(HEADER + size);
    native.bytes.set(new Uint8Array(Uint32Array.of(number, 0, size).buffer));
    let at = HEADER;
    for (const piece of payload) {
      native.bytes.set(piece, at);
      at += piece.length;
    }
    for (let sent = 0; sent < at; await sleep(1)) {
      sent += Math.max(0, send(this.#fd, native.address + BigInt(sent), at - sent));
    }
  }

  /** Asks the display for something. */
  async ask(number: number, ...words: readonly number[]): Promise<DataView> {
    await this.tell(number, ...words);
    const [request, flags, size] = new Uint32Array((await this.#take(HEADER)).buffer);
    if (request !== number || flags !== REPLY) throw new Error(`to ${number} it says ${request}, ${flags}`);
    return new DataView((await this.#take(size)).buffer);
  }

  get #fd(): number {
    if (this.socket === undefined) throw new Error("no display");
    return this.socket;
  }

  async #take(length: number): Promise<Uint8Array<ArrayBuffer>> {
    const target = new Uint8Array(length);
    const deadline = performance.now() + PATIENCE;
    for (let have = 0; have < length;) {
      const bytes = readBytes(this.#fd, length - have);
      if (bytes === null) await sleep(1);
      else if (bytes.length === 0) throw new Error("the display has gone");
      else {
        target.set(bytes, have);
        have += bytes.length;
      }
      if (performance.now() > deadline) throw new Error(`${have} of ${length} bytes have come`);
    }
    return target;
  }
}
