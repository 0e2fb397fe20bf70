// A thread of sigbus_child.ts: when all have come so far, watches over memory for the first time, and touches it.

import { Mapping, memoryFile, resizeFile } from "../../ffi/mapping.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Int32Array>) => void;
  postMessage(message: unknown): void;
};

scope.onmessage = ({ data: waiting }) => {
  const fd = memoryFile("of a thread", 4096);
  const own = new Mapping(fd, 4096);
  resizeFile(fd, 0);
  Atomics.sub(waiting, 0, 1);
  while (Atomics.load(waiting, 0) > 0);
  own.watch(() => {});
  scope.postMessage(new Uint8Array(own.buffer)[3]);
};
