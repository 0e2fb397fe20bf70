/**
 * A target with a mistake in it, for the tests of what finds, repeats and shrinks them. What is after the `?` of its URL says
 * which: it comes when a case has the steps 17 and 42, in this order.
 *
 * @module
 */

import { bufferAt } from "../../ffi/deno.ts";
import { eventfd } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import type { Target } from "./target.ts";

const mistake = new URL(import.meta.url).search.slice(1);
const kept: unknown[] = [];
let before = 0;

function mistaken(): void {
  switch (mistake) {
    case "throw":
      throw new Error("planted");
    case "late":
      return void setTimeout(() => {
        throw new Error("planted, where nobody listens");
      });
    case "crash":
      // The first page is nobody's.
      return void (new Uint8Array(bufferAt(8n, 8))[0] = 1);
    case "hang":
      for (;;);
    case "descriptor":
      return void eventfd();
    case "mapping": {
      const fd = memoryFile("planted", 4096);
      kept.push(new Mapping(fd, 4096));
      return close(fd);
    }
    case "timer":
      return void setInterval(() => {}, 1e6);
    case "history":
      if (before > 0) throw new Error("planted, for the second time");
      before++;
  }
}

const target: Target<number> = {
  name: "planted",
  summary: "A target with a mistake in it.",
  unit: "steps",
  cases: 200,
  least: 1,
  make: (random) => Array.from({ length: 16 }, () => random.int(0, 63)),
  open: () =>
    Promise.resolve({
      run: (steps) => {
        if (mistake === "memory") kept.push(new Array(1 << 20).fill(Math.random()));
        const first = steps.indexOf(17);
        if (first >= 0 && steps.includes(42, first)) mistaken();
        return Promise.resolve(steps.length);
      },
    }),
};

export default target;
