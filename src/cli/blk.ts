/**
 * `vhost-user blk`.
 *
 * @module
 */

import { BlkDevice, FileStorage, openStorage } from "../devices/blk/mod.ts";
import { type Command, UsageError, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions, workersPermission } from "./serving.ts";

/** Serves a disk. */
export const blk: Command = {
  summary: "Serves a disk to a virtual machine. The size of --blk-file may change: SIGHUP tells the guest.",
  options: {
    "blk-file": { value: "PATH", offer: "file", help: "The disk: a raw image or a block device." },
    "storage": {
      value: "URI",
      offer: ["file:", "mem:", "null:"],
      help: "The disk as file:PATH, mem:SIZE (in memory) or null:SIZE (for measuring).\nExcludes --blk-file.",
    },
    "direct": { help: "Read and write the file past the page cache (O_DIRECT)." },
    "aio": {
      value: "HOW",
      choices: ["io_uring", "sync"],
      help:
        "Wait for the file by io_uring, which holds up nothing else, or sync.\nBy default io_uring where the kernel allows it.",
    },
    "read-only": { help: "Refuse writes. Several front-ends may then be connected at once." },
    "num-queues": { value: "N", help: "Most queues a front-end may use, 1 to 256 (default 16)." },
    "id": { value: "TEXT", help: "Serial number that the guest reads, up to 20 ASCII characters." },
    "block-size": {
      value: "BYTES",
      offer: ["512", "1024", "2048", "4096"],
      help: "Logical block size: 512 (default), 1024, 2048 or 4096.",
    },
    "shared": { help: "Let several front-ends write at once. Only for file systems made for that." },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user blk --socket-path=/tmp/disk.sock --blk-file=disk.img",
      "Serves disk.img. Attach it in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/disk.sock,reconnect-ms=500 -device vhost-user-blk-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and requests hang.",
    ],
    [
      "vhost-user blk --socket-path=/tmp/null.sock --storage=null:1G",
      "A disk that does nothing, for measuring.",
    ],
  ],
  permissions: [workersPermission],
  capabilities: { type: "block", features: ["read-only", "blk-file"] },
  run: async (values, output) => {
    const { "blk-file": file, storage: uri, "num-queues": queues, "block-size": blockSize, id } = values;
    if ((file === undefined) === (uri === undefined)) {
      throw new UsageError("give either --blk-file or --storage");
    }
    const options = serveOptions(values, output);
    const numQueues = queues === undefined ? undefined : wholeNumber("num-queues", String(queues), 1, 256);
    const readOnly = values["read-only"] === true;
    const source = file === undefined ? String(uri) : `file:${file}`;
    const aio = values.aio as "io_uring" | "sync" | undefined;
    const storage = openStorage(source, { readOnly, direct: values.direct === true, aio });
    try {
      const disk = new BlkDevice({
        storage,
        readOnly,
        numQueues,
        id: id as string | undefined,
        blockSize: blockSize === undefined
          ? undefined
          : wholeNumber("block-size", String(blockSize), 512, 4096),
        shared: values.shared === true ? true : undefined,
      });
      const what = `vhost-user blk: ${source}, ${storage.size} bytes${readOnly ? ", read-only" : ""},`;
      await serveUntilSignal(disk, options, what, output, () => {
        if (!(storage instanceof FileStorage)) return;
        storage.refresh();
        disk.resized();
      });
    } finally {
      storage.close();
    }
    return 0;
  },
};
