/**
 * `vhost-user vsock`.
 *
 * @module
 */

import { errorText } from "../../mod.ts";
import { VsockDevice, VsockGroup } from "../devices/vsock/mod.ts";
import { type Command, fileMode, type Output, UsageError, type Values, wholeNumber } from "./command.ts";
import { withSockets } from "./sandbox.ts";
import {
  serveAllUntilSignal,
  type Served,
  serveOptions,
  type ServingOptions,
  servingOptions,
} from "./serving.ts";

const MAX_CID = 0xffff_fffe;

/** One guest, as the command line describes it. */
interface Machine {
  readonly cid: string;
  readonly options: ServingOptions;
  readonly unixPath: string | undefined;
  readonly groups: readonly string[];
  readonly bufferSize: string | undefined;
}

/** What a value of `--vm` may have. The names are those of vhost-device-vsock. */
const FIELDS = ["guest-cid", "socket", "uds-path", "groups", "tx-buffer-size"];

/** A guest by a value of `--vm`. */
function machine(text: string, values: Values, output: Output): Machine {
  const fields = new Map<string, string>();
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    const name = part.slice(0, Math.max(0, at));
    if (!FIELDS.includes(name) || fields.has(name)) {
      throw new UsageError(`--vm takes ${FIELDS.join("=, ")}=, each once; got '${part}'`);
    }
    fields.set(name, part.slice(at + 1));
  }
  const [cid, socket] = ["guest-cid", "socket"].map((name) => {
    const value = fields.get(name);
    if (value === undefined || value === "") throw new UsageError(`--vm needs ${name}=, got '${text}'`);
    return value;
  });
  return {
    cid,
    options: serveOptions({ ...values, "socket-path": socket }, output),
    unixPath: fields.get("uds-path"),
    groups: fields.get("groups")?.split("+").filter((name) => name !== "") ?? [],
    bufferSize: fields.get("tx-buffer-size"),
  };
}

function machines(values: Values, output: Output): Machine[] {
  const { vm, "guest-cid": cid, "uds-path": unixPath, "socket-path": path, fd } = values;
  if (vm === undefined) {
    if (cid === undefined) throw new UsageError("--guest-cid or --vm is needed");
    return [{
      cid: String(cid),
      options: serveOptions(values, output),
      unixPath: unixPath as string | undefined,
      groups: [],
      bufferSize: undefined,
    }];
  }
  if ([cid, unixPath, path, fd].some((value) => value !== undefined)) {
    throw new UsageError("--vm excludes --guest-cid, --uds-path, --socket-path and --fd");
  }
  return (vm as readonly string[]).map((text) => machine(text, values, output));
}

/** Serves sockets between guests and the host. */
export const vsock: Command = {
  summary:
    "Serves sockets between a virtual machine and its host. For the host's programs they are Unix sockets.",
  options: {
    "guest-cid": { value: "N", help: "The guest's context id (CID), from 3." },
    "uds-path": {
      value: "PATH",
      offer: "file",
      help: "Unix sockets for the host: programs connect to PATH and say 'CONNECT PORT' to reach\n" +
        "the guest, and listen on PATH_PORT to be reached by it. Seqpacket: PATH_seqpacket.",
    },
    "vm": {
      value: "SPEC",
      multiple: true,
      help: "A guest as guest-cid=N,socket=PATH,uds-path=PATH,groups=NAME+NAME; may be given several\n" +
        "times, in place of the options above. Guests with a group in common reach each other.\n" +
        "tx-buffer-size=BYTES is --buffer-size for one guest.",
    },
    "uds-mode": { value: "MODE", help: "Permission bits of the socket --uds-path, octal (default 600)." },
    "buffer-size": {
      value: "BYTES",
      help: "What is kept of each connection while nobody reads, 4096 to 16777216 (default 262144).",
    },
    "max-connections": { value: "N", help: "The most connections of a guest, 1 to 65536 (default 1024)." },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user vsock --socket-path=/tmp/vsock.sock --guest-cid=3 --uds-path=/tmp/v.sock",
      "Serves one guest. Attach it in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/vsock.sock -device vhost-user-vsock-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and nothing arrives.",
    ],
    [
      "(echo CONNECT 5000; cat) | nc -U /tmp/v.sock",
      "Connects to port 5000 of the guest, from the host.",
    ],
    [
      "nc -lU /tmp/v.sock_1234",
      "Waits for the guest to connect to port 1234 of the host (socat - VSOCK-CONNECT:2:1234).",
    ],
    [
      "vhost-user vsock --vm guest-cid=3,socket=/tmp/3.sock,groups=a --vm guest-cid=4,socket=/tmp/4.sock,groups=a",
      "Serves two guests that may connect to each other.",
    ],
  ],
  capabilities: { type: "vsock", features: [] },
  run: async (values, output) => {
    const { "uds-mode": mode, "buffer-size": buffer, "max-connections": most } = values;
    const unixMode = mode === undefined ? undefined : fileMode("uds-mode", String(mode));
    const sizeOf = (text: unknown): number | undefined =>
      text === undefined ? undefined : wholeNumber("buffer-size", String(text), 4096, 1 << 24);
    const maxConnections = most === undefined
      ? undefined
      : wholeNumber("max-connections", String(most), 1, 1 << 16);
    const groups = new Map<string, VsockGroup>();
    const groupOf = (name: string): VsockGroup => {
      const group = groups.get(name) ?? new VsockGroup();
      groups.set(name, group);
      return group;
    };
    const devices: VsockDevice[] = [];
    const served: Served[] = [];
    try {
      const guests = machines(values, output);
      for (const each of guests) {
        const { options, unixPath } = each;
        const device = new VsockDevice({
          guestCid: wholeNumber("guest-cid", each.cid, 3, MAX_CID),
          unixPath,
          unixMode,
          bufferSize: sizeOf(each.bufferSize ?? buffer),
          maxConnections,
          groups: each.groups.map(groupOf),
          onError: (error) => options.log?.("warning", `vsock ${each.cid}: ${errorText(error)}`),
        });
        devices.push(device);
        served.push({ device, options, what: `vhost-user vsock: guest ${each.cid}` });
      }
      const paths = guests.map(({ unixPath }) => unixPath);
      // The host's sockets are looked for when the guest connects.
      const needs = withSockets({ unix: paths.some((path) => path !== undefined) }, paths);
      await serveAllUntilSignal(served, output, () => {}, needs);
    } finally {
      for (const device of devices) device.close();
    }
    return 0;
  },
};
