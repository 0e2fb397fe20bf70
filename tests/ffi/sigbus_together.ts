// A thread of sigbus_child.ts: when all have come so far, watches over memory for the first time, and touches it.

import { Mapping, memoryFile, resizeFile } from "../../ffi/mapping.ts";
import { answering } from "../support/thread.ts";

const answer = answering((message) => {
  const waiting = message as Int32Array;
  const fd = memoryFile("of a thread", 4096);
  const own = new Mapping(fd, 4096);
  resizeFile(fd, 0);
  Atomics.sub(waiting, 0, 1);
  while (Atomics.load(waiting, 0) > 0);
  own.watch(() => {});
  answer(new Uint8Array(own.buffer)[3]);
});
