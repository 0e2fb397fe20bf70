// What sigbus_test.ts runs as a process of its own, as a mistake would end it: makes a file shorter that is mapped, touches
// it, and says what came of it.

import process from "node:process";
import { close } from "../../ffi/fd.ts";
import { Collage, Mapping, memoryFile, resizeFile } from "../../ffi/mapping.ts";
import { TestThread } from "../support/thread.ts";

const SIZE = 1 << 16;

/** A mapping with sevens in it, the file of which is then emptied by {@link shorten}. */
function mapped(watched: boolean): { bytes: Uint8Array<ArrayBuffer>; mapping: Mapping; shorten(): void } {
  const fd = memoryFile("shrinks", SIZE);
  const mapping = new Mapping(fd, SIZE);
  if (watched) mapping.watch(() => lost++);
  const bytes = new Uint8Array(mapping.buffer).fill(7);
  return { bytes, mapping, shorten: () => resizeFile(fd, 0) };
}

const said: string[] = [];

let lost = 0;

async function told(times: number): Promise<void> {
  while (lost < times) await new Promise((resolve) => setTimeout(resolve, 1));
  // No second time either.
  await new Promise((resolve) => setTimeout(resolve, 20));
  said.push(`lost ${lost}`);
}

// Something that is watched for keeps the reactor running, as a connection does.
const { Reactor } = await import("../../ffi/reactor.ts");
const { eventfd } = await import("../../ffi/eventfd.ts");
const open = eventfd();
Reactor.shared().watch(open, () => {});

const modes: Record<string, () => Promise<void> | void> = {
  async read(): Promise<void> {
    const { bytes, shorten } = mapped(true);
    shorten();
    said.push(`${bytes[5000]} ${bytes[60000]}`);
    await told(1);
  },
  async write(): Promise<void> {
    const { bytes, shorten } = mapped(true);
    const other = mapped(true);
    shorten();
    bytes.fill(3, 100, 20000);
    said.push(`${bytes[99]} ${bytes[100]} ${other.bytes[100]}`);
    await told(1);
  },
  async atomics(): Promise<void> {
    const { mapping, shorten } = mapped(true);
    const words = new Int32Array(mapping.buffer);
    shorten();
    said.push(`${Atomics.add(words, 1000, 5)} ${Atomics.load(words, 1000)}`);
    await told(1);
  },
  async copy(): Promise<void> {
    const [from, to] = [mapped(true), mapped(true)];
    from.shorten();
    to.shorten();
    to.bytes.set(from.bytes.subarray(1, 50000), 3);
    said.push(`${to.bytes[100]}`);
    await told(2);
  },
  async collage(): Promise<void> {
    const { mapping, shorten } = mapped(true);
    const collage = new Collage([
      { address: mapping.address + 8192n, byteLength: 4096 },
      { address: mapping.address, byteLength: 4096 },
    ]);
    collage.watch(() => lost++);
    shorten();
    said.push(`${new Uint8Array(collage.buffer)[5000]}`);
    await told(1);
    collage.unmap();
  },
  // Memory that another thread has mapped and watches, as the threads of a device have it.
  async thread(): Promise<void> {
    const { mapping, shorten } = mapped(true);
    shorten();
    const worker = new TestThread(new URL("./sigbus_worker.ts", import.meta.url));
    worker.post({ address: mapping.address, byteLength: SIZE });
    said.push(String(await worker.next()));
    await told(1);
    worker.end();
  },
  // Threads that start to watch at the same time, as the workers of a device do when it gets a dirty log. As often as there is
  // time for: Node takes longer to start them than Deno.
  async together(): Promise<void> {
    const url = new URL("./sigbus_together.ts", import.meta.url);
    let others = 0;
    for (let round = 0; round < 120 && performance.now() < 10_000; round++) {
      const waiting = new Int32Array(new SharedArrayBuffer(4)).fill(2);
      const workers = [0, 1].map(() => new TestThread(url));
      for (const worker of workers) worker.post(waiting);
      for (const found of await Promise.all(workers.map((worker) => worker.next()))) {
        if (found !== 0) others++;
      }
      for (const worker of workers) worker.end();
    }
    said.push(`${others} others`);
  },
  async often(): Promise<void> {
    for (let i = 0; i < 300; i++) {
      const { bytes, mapping, shorten } = mapped(true);
      shorten();
      bytes[i] = 1;
      while (lost <= i) await new Promise((resolve) => setTimeout(resolve, 0));
      mapping.unmap();
    }
    await told(300);
  },
  unwatched(): void {
    mapped(true).shorten();
    const { bytes, shorten } = mapped(false);
    shorten();
    said.push(`${bytes[1]}`);
  },
  unmapped(): void {
    const { bytes, mapping, shorten } = mapped(true);
    mapping.unmap();
    shorten();
    said.push(`${bytes[1]}`);
    // What is now in its place is nobody's business.
    const places = Array.from({ length: 8 }, () => mapped(false));
    for (const place of places) place.shorten();
    said.push(places.map((place) => place.bytes[1]).join());
  },
};

await modes[process.argv[2]]();
process.stdout.write(`${said.join("; ")}\n`);
Reactor.shared().unwatch(open);
close(open);
process.exit(0);
