import { join } from "node:path";
import { type Device, serve, type ServeOptions, type Server } from "../../mod.ts";
import { type DriverQueue, FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { LogBook } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";

/** A place where one back-end after the other is, and front-ends that outlive them. */
export class Stand {
  /** Path of the socket. */
  readonly path: string;
  /** What the servers say. */
  readonly log = new LogBook();
  readonly #scope: Scope;
  #server: Server | undefined;

  constructor(scope: Scope) {
    this.#scope = scope;
    this.path = join(tempDir(scope), "socket");
    onEnd(scope, () => this.#server?.close());
  }

  /** Serves a device here, in place of what was served before. */
  async serve(device: Device, options: Partial<ServeOptions> = {}): Promise<void> {
    this.#server?.close();
    this.#server = await serve(device, { socketPath: this.path, log: this.log.write, ...options });
  }

  /** Nobody is here. */
  close(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** A front-end that connects again, quickly. */
  async frontEnd(options: FrontEndOptions = {}): Promise<FrontEnd> {
    const frontEnd = await FrontEnd.connect(this.path, {
      reconnect: { firstDelay: 1, longestDelay: 10 },
      ...options,
    });
    onEnd(this.#scope, () => frontEnd.close());
    return frontEnd;
  }

  /** Memory to share. */
  memory(byteLength: number = 1 << 16, guestAddress: number = 0x1000_0000): SharedMemory {
    const memory = new SharedMemory(byteLength, guestAddress);
    onEnd(this.#scope, () => memory.close());
    return memory;
  }
}

/** Sends some bytes to an echo; resolves when they have come back. */
export async function echo(queue: DriverQueue, memory: SharedMemory, value: number): Promise<void> {
  const { guestAddress, bytes } = memory.allocate(16);
  bytes.fill(value, 0, 8);
  const written = await queue.request(
    [{ guestAddress, length: 8 }],
    [{ guestAddress: guestAddress + 8, length: 8 }],
  );
  if (written !== 8 || bytes.some((byte) => byte !== value)) {
    throw new Error(`expected 8 bytes of ${value}, got ${written} and ${bytes}`);
  }
}

/** Resolves when one of a front-end's callbacks is called. */
export function next(
  frontEnd: FrontEnd,
  what: "onReconnect" | "onDisconnect" | "onEnd" | "onConfigChange",
): Promise<unknown> {
  return new Promise((resolve) => frontEnd[what] = (reason?: unknown) => resolve(reason));
}
