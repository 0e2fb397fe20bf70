import assert from "node:assert/strict";
import { test } from "node:test";
import { close, DescriptorBag } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { Journal } from "../../src/backend/takeover/journal.ts";
import type { frontendMessages } from "../../src/protocol/messages.ts";
import type { Handlers } from "../../src/transport/responder.ts";
import { countMemoryFiles } from "../ffi/descriptors.ts";

// What was open for a test before may be closed meanwhile, so only what is a file of these tests is counted.
const FILE = "journal_test";
const descriptors = (): number => countMemoryFiles(FILE);

test("a message that is handled until after its front-end has left leaves no descriptor", async () => {
  const journal = new Journal(1, { regions: [] });
  let handled = (): void => {};
  const handlers = {
    SET_VRING_CALL: () => new Promise<void>((resolve) => handled = resolve),
  } as unknown as Handlers<typeof frontendMessages>;
  const recorded = journal.recording(handlers) as unknown as {
    SET_VRING_CALL(payload: unknown, fds: DescriptorBag): Promise<void>;
  };
  const fd = memoryFile(FILE, 4096);
  const done = recorded.SET_VRING_CALL({ index: 0, noDescriptor: false }, new DescriptorBag([fd]));
  journal.close();
  handled();
  await done;
  close(fd);
  assert.equal(descriptors(), 0);
});

test("a message that needs no descriptor, but has one, leaves none", async () => {
  const journal = new Journal(1, { regions: [] });
  const handlers = {
    ADD_MEM_REG: () => {},
    REM_MEM_REG: () => {},
  } as unknown as Handlers<typeof frontendMessages>;
  const recorded = journal.recording(handlers) as unknown as Record<
    "ADD_MEM_REG" | "REM_MEM_REG",
    (payload: unknown, fds: DescriptorBag) => unknown
  >;
  const region = { guestAddress: 0, userAddress: 0, size: 4096, mmapOffset: 0 };
  const fd = memoryFile(FILE, 4096);
  await recorded.ADD_MEM_REG(region, new DescriptorBag([fd]));
  assert.equal(descriptors(), 2, "the copy is the journal's");
  await recorded.REM_MEM_REG(region, new DescriptorBag([fd]));
  close(fd);
  assert.equal(descriptors(), 0);
  journal.close();
});
