import { PackedDriverRing } from "../../src/frontend/packed_driver_ring.ts";
import { SharedMemory } from "../../src/frontend/shared_memory.ts";
import { SplitDriverRing } from "../../src/frontend/split_driver_ring.ts";
import { Random } from "../support/random.ts";
import { answering } from "../support/thread.ts";
import { answerTo, Bell, type DriverPlace, type DriverTask, PATIENCE } from "./two_threads.ts";

/** Bytes that each request uses: a question of 8 from the start, an answer of 8 behind it. */
const ROOM = 16;

/** A driver that sends requests as fast as it can, and checks the answers. */
function drive(task: DriverTask, memory: SharedMemory, ring: SplitDriverRing | PackedDriverRing): void {
  const random = new Random(7);
  const bells = new Int32Array(task.bells);
  const data = memory.allocate(task.size * ROOM);
  const view = new DataView(data.bytes.buffer, data.bytes.byteOffset);
  const places = Array.from({ length: task.size }, (_, i) => i);
  const sent = new Map<number, { place: number; question: number }>();
  let [added, returned] = [0, 0];
  while (returned < task.count) {
    for (let batch = random.int(1, 5); batch > 0 && added < task.count && places.length > 0; batch--) {
      const place = places[places.length - 1];
      const at = data.guestAddress + place * ROOM;
      const halves = random.int(0, 1) === 1 && task.size >= 4;
      const question = (added * 2_654_435_761) >>> 0;
      view.setUint32(place * ROOM, question, true);
      view.setUint32(place * ROOM + 4, ~question >>> 0, true);
      const head = ring.add(
        halves
          ? [{ guestAddress: at, length: 4 }, { guestAddress: at + 4, length: 4 }]
          : [{ guestAddress: at, length: 8 }],
        [{ guestAddress: at + 8, length: 8 }],
      );
      if (head < 0) break;
      places.pop();
      sent.set(head, { place, question });
      added++;
    }
    if (ring.publish()) {
      Atomics.add(bells, Bell.KICK, 1);
      Atomics.notify(bells, Bell.KICK);
    }
    const calls = Atomics.load(bells, Bell.CALL);
    let some = false;
    for (let used = ring.take(); used !== null; used = ring.take()) {
      const request = sent.get(used.head);
      if (request === undefined) throw new Error(`request ${used.head} came back twice`);
      const answer = view.getUint32(request.place * ROOM + 8, true);
      if (used.written !== 8 || answer !== answerTo(request.question)) throw new Error("a wrong answer");
      sent.delete(used.head);
      places.push(request.place);
      returned++;
      some = true;
    }
    if (some || added < task.count && places.length > 0 && ring.free >= 3) continue;
    if (returned === task.count || ring.arm()) continue;
    if (Atomics.wait(bells, Bell.CALL, calls, PATIENCE) === "timed-out") throw new Error("a call was lost");
    ring.suppress();
  }
}

const answer = answering((message) => {
  const task = message as DriverTask;
  const memory = new SharedMemory(2 ** 20);
  const Format = task.packed ? PackedDriverRing : SplitDriverRing;
  const ring = new Format(memory, task);
  answer(
    {
      fd: memory.fd,
      byteLength: memory.byteLength,
      guestAddress: memory.guestAddress,
      descriptor: ring.descriptor.guestAddress,
      available: ring.available.guestAddress,
      used: ring.used.guestAddress,
    } satisfies DriverPlace,
  );
  let outcome = "";
  try {
    drive(task, memory, ring);
  } catch (error) {
    outcome = String(error);
  }
  const bells = new Int32Array(task.bells);
  Atomics.store(bells, Bell.DONE, 1);
  Atomics.add(bells, Bell.KICK, 1);
  Atomics.notify(bells, Bell.KICK);
  memory.close();
  answer(outcome);
});
