import { defineDevice, type OwnedQueue, type QueueOwner } from "../../../mod.ts";

/** Answers what comes in one ring of a pair in the other: both have to be in one thread. */
class Half implements QueueOwner {
  queue: OwnedQueue | undefined;
  readonly #other: () => Half;

  constructor(other: () => Half) {
    this.#other = other;
  }

  start(queue: OwnedQueue): void {
    this.queue = queue;
  }

  stop(): void {
    this.queue = undefined;
  }

  work(queue: OwnedQueue): void {
    if (queue.index % 2 === 0) return;
    for (let question = queue.take(); question !== null; question = queue.take()) {
      const answer = this.#other().queue?.take();
      if (answer) {
        answer.write(question.read());
        this.#other().queue?.complete(answer);
      }
      queue.complete(question);
    }
  }
}

function pair(): [Half, Half] {
  const halves: [Half, Half] = [new Half(() => halves[1]), new Half(() => halves[0])];
  return halves;
}

export default defineDevice({
  type: 43,
  name: "pair",
  worker: { group: 2 },
  connect: () => ({ queues: [...pair(), ...pair()] }),
});
