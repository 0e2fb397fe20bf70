// A front-end that makes its memory file shorter while the back-end works on requests in it. What truncated_memory_test.ts runs
// as a process of its own, which may well end by SIGBUS itself.

import process from "node:process";
import { signal } from "../../ffi/eventfd.ts";
import { Mapping, memoryFile, resizeFile } from "../../ffi/mapping.ts";
import { BlkRequest } from "../../src/devices/blk/layout.ts";
import { FrontEnd, type Piece, type SharedMemory } from "../../src/frontend/mod.ts";

/** How the back-end comes to the memory that goes. */
export type Part = "buffers" | "rings" | "all" | "log" | "in-flight";

const [path, part, packed] = process.argv.slice(2) as [string, Part, string];
const SIZE = 1 << 20;
const DEPTH = 32;

/** Every protocol feature that the back-end has, the log among them. */
const ALL = 0xf_ffffn;

/** Memory whose file may become shorter, which {@link SharedMemory} promises that it does not. */
class LooseMemory {
  readonly fd = memoryFile("loose", SIZE);
  readonly byteLength = SIZE;
  readonly guestAddress: number;
  readonly #mapping = new Mapping(this.fd, SIZE);
  #used = 0;

  constructor(guestAddress: number) {
    this.guestAddress = guestAddress;
  }

  get userAddress(): bigint {
    return this.#mapping.address;
  }

  allocate(byteLength: number, align = 16): Piece {
    const start = Math.ceil(this.#used / align) * align;
    this.#used = start + byteLength;
    return {
      guestAddress: this.guestAddress + start,
      userAddress: this.#mapping.address + BigInt(start),
      bytes: new Uint8Array(this.#mapping.buffer, start, byteLength),
    };
  }
}

const frontEnd = await FrontEnd.connect(path, {
  withoutFeatures: packed === "packed" ? 0n : 1n << 34n,
  protocolFeatures: ALL,
});
const [rings, buffers] = [new LooseMemory(0x1000_0000), new LooseMemory(0x2000_0000)];
await frontEnd.shareMemory(rings);
await frontEnd.shareMemory(buffers);
const going: number[] = [];
if (part === "buffers" || part === "all") going.push(buffers.fd);
if (part === "rings" || part === "all") going.push(rings.fd);
if (part === "in-flight") {
  // As many bytes as the back-end wants, in a file of our own.
  const fd = memoryFile("in-flight", SIZE);
  await frontEnd.request("SET_INFLIGHT_FD", {
    mmapSize: BigInt(SIZE),
    mmapOffset: 0n,
    numQueues: 1,
    queueSize: 128,
  }, [fd]);
  going.push(fd);
}
if (part === "log") {
  const fd = memoryFile("log", SIZE);
  await frontEnd.request("SET_LOG_BASE", { size: BigInt(SIZE), offset: 0n }, [fd]);
  await frontEnd.request("SET_FEATURES", frontEnd.features | 1n << 26n);
  going.push(fd);
}
const queue = await frontEnd.startQueue(0, rings as unknown as SharedMemory, { size: 128 });
await frontEnd.driverOk();
let done = 0;
const ended = new Promise<never>((_, reject) => frontEnd.onEnd = reject);
const streams = Array.from({ length: DEPTH }, async (_, n) => {
  const [header, data, status] = [buffers.allocate(16), buffers.allocate(8192, 512), buffers.allocate(1)];
  const fields = new DataView(header.bytes.buffer, header.bytes.byteOffset, 16);
  fields.setUint32(0, n % 2 === 0 ? BlkRequest.OUT : BlkRequest.IN, true);
  fields.setBigUint64(8, BigInt(1024 + n * 16), true);
  const [head, whole, last] = [header, data, status].map(({ guestAddress, bytes }) => ({
    guestAddress,
    length: bytes.length,
  }));
  for (;;) {
    await queue.request(n % 2 === 0 ? [head, whole] : [head], n % 2 === 0 ? [last] : [whole, last]);
    // From here on nothing touches the buffers any more.
    if (++done === 200) shorten();
  }
});

function shorten(): void {
  process.stdout.write("shorter\n");
  for (const fd of going) resizeFile(fd, 0);
  if (part !== "rings" && part !== "all") return;
  // This process could not look at the ring without ending.
  signal(queue.kick);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

await Promise.race([ended, ...streams]).catch((error) => process.stdout.write(`over: ${error?.message}\n`));
process.exit(0);
