/**
 * `vhost-user scsi`.
 *
 * @module
 */

import { FileStorage, openStorage, ScsiDevice, type ScsiUnitOptions } from "../devices/scsi/mod.ts";
import { type Command, UsageError, wholeNumber } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** What may stand behind a storage, after a comma. */
interface LunOptions {
  readonly uri: string;
  readonly readOnly: boolean;
  readonly id: string | undefined;
  readonly wwn: string | undefined;
  readonly blockSize: string | undefined;
}

/** Reads `URI[,read-only][,id=TEXT][,wwn=HEX][,block-size=BYTES]`. A comma that no option follows belongs to the path. */
function parseLun(text: string): LunOptions {
  const words = text.split(",");
  let readOnly = false;
  const values = new Map<string, string>();
  for (; words.length > 1; words.pop()) {
    const word = words[words.length - 1];
    const match = /^(id|wwn|block-size)=(.*)$/.exec(word);
    if (word === "read-only") readOnly = true;
    else if (match !== null) values.set(match[1], match[2]);
    else break;
  }
  const [id, wwn, blockSize] = ["id", "wwn", "block-size"].map((name) => values.get(name));
  return { uri: words.join(","), readOnly, id, wwn, blockSize };
}

function parseWwn(text: string): bigint {
  if (!/^(0x)?[0-9a-f]{16}$/i.test(text)) {
    throw new UsageError(`wwn must have 16 hexadecimal digits, got '${text}'`);
  }
  return BigInt(text.startsWith("0x") ? text : `0x${text}`);
}

/** Serves a SCSI host. */
export const scsi: Command = {
  summary:
    "Serves a SCSI host with disks to a virtual machine. Files may change their size: SIGHUP tells the guest.",
  options: {
    "lun": {
      value: "DISK",
      offer: ["file:", "mem:", "null:"],
      multiple: true,
      help: "A disk as file:PATH, mem:SIZE (in memory) or null:SIZE (for measuring), then, as wanted,\n" +
        ",read-only  ,id=SERIAL  ,wwn=HEX (16 digits)  ,block-size=BYTES (512 or 4096).\n" +
        "The first is unit 0, the next unit 1 and so on.",
    },
    "direct": { help: "Read and write files past the page cache (O_DIRECT)." },
    "aio": {
      value: "HOW",
      choices: ["io_uring", "sync"],
      help:
        "Wait for files by io_uring, which holds up nothing else, or sync.\nBy default io_uring where the kernel allows it.",
    },
    "read-only": { help: "Refuse writes to all disks. Several front-ends may then be connected at once." },
    "num-queues": {
      value: "N",
      help: "Most request queues a front-end may use, 1 to 254 (default 16).",
    },
    "shared": { help: "Let several front-ends write at once. Only for file systems made for that." },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user scsi --socket-path=/tmp/scsi.sock --lun=file:disk.img --lun=file:tools.img,read-only,id=tools",
      "Serves two disks. Attach them in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/scsi.sock,reconnect-ms=500 -device vhost-user-scsi-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and requests hang.",
    ],
  ],
  capabilities: { type: "scsi", features: [] },
  run: async (values, output) => {
    const { "num-queues": queues } = values;
    const aio = values.aio as "io_uring" | "sync" | undefined;
    const disks = [values.lun ?? []].flat().map((text) => parseLun(String(text)));
    if (disks.length === 0) throw new UsageError("give --lun, once for each disk");
    const options = serveOptions(values, output);
    const requestQueues = queues === undefined
      ? undefined
      : wholeNumber("num-queues", String(queues), 1, 254);
    const units: ScsiUnitOptions[] = [];
    try {
      for (const { uri, readOnly: one, id, wwn, blockSize } of disks) {
        const readOnly = one || values["read-only"] === true;
        const rest = {
          readOnly,
          id,
          wwn: wwn === undefined ? undefined : parseWwn(wwn),
          blockSize: blockSize === undefined
            ? undefined
            : wholeNumber("lun block-size", blockSize, 512, 4096),
        };
        units.push({ storage: openStorage(uri, { readOnly, direct: values.direct === true, aio }), ...rest });
      }
      const shared = values.shared === true ? true : undefined;
      const host = new ScsiDevice({ units, requestQueues, shared });
      const what = `vhost-user scsi: ${units.length} ${units.length === 1 ? "disk" : "disks"}`;
      await serveUntilSignal(host, options, what, output, () => {
        units.forEach(({ storage }, lun) => {
          if (!(storage instanceof FileStorage)) return;
          const before = storage.size;
          storage.refresh();
          if (storage.size !== before) host.resized(lun);
        });
      });
    } finally {
      for (const { storage } of units) storage.close();
    }
    return 0;
  },
};
