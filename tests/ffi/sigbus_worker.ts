// A thread of sigbus_child.ts: touches memory that the first thread has mapped, and some of its own.

import { Mapping, MappingView, memoryFile, resizeFile } from "../../ffi/mapping.ts";
import { answering } from "../support/thread.ts";

const answer = answering((message) => {
  const { address, byteLength } = message as { address: bigint; byteLength: number };
  const fd = memoryFile("of a thread", byteLength);
  const own = new Mapping(fd, byteLength);
  own.watch(() => {});
  resizeFile(fd, 0);
  const bytes = [own, new MappingView(address, byteLength, () => {})].map(({ buffer }) =>
    new Uint8Array(buffer)
  );
  const found = bytes.map((each) => each[3]);
  for (const each of bytes) each.fill(9);
  answer([...found, ...bytes.map((each) => each[byteLength - 1])].join());
});
