// A thread of sigbus_child.ts: touches memory that the first thread has mapped, and some of its own.

import { Mapping, MappingView, memoryFile, resizeFile } from "../../ffi/mapping.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ address: bigint; byteLength: number }>) => void;
  postMessage(message: unknown): void;
};

scope.onmessage = ({ data: { address, byteLength } }) => {
  const fd = memoryFile("of a thread", byteLength);
  const own = new Mapping(fd, byteLength);
  own.watch(() => {});
  resizeFile(fd, 0);
  const bytes = [own, new MappingView(address, byteLength, () => {})].map(({ buffer }) =>
    new Uint8Array(buffer)
  );
  const found = bytes.map((each) => each[3]);
  for (const each of bytes) each.fill(9);
  scope.postMessage([...found, ...bytes.map((each) => each[byteLength - 1])].join());
};
