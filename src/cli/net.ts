/**
 * `vhost-user net`.
 *
 * @module
 */

import { errorText, type Needs } from "../../mod.ts";
import { NetDevice, openNetwork, parseMac, PcapFile } from "../devices/net/mod.ts";
import { type Command, UsageError, wholeNumber } from "./command.ts";
import { withSockets } from "./sandbox.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** What a network still needs once it is open. */
function needsOf(uri: string): Needs {
  const [, kind, path] = /^(\w+):?(.*)$/.exec(uri) ?? [];
  switch (kind) {
    case "user":
      return { inet: true };
    case "stream":
      // Connected to again when its peer has gone.
      return { unix: true };
    case "listen":
      return withSockets({}, [path]);
    default:
      return {};
  }
}

/** Serves a network card. */
export const net: Command = {
  summary:
    "Serves a network card to a virtual machine. By default guests that connect to it are in one network.",
  options: {
    "network": {
      value: "URI",
      offer: ["switch", "tap:", "user", "stream:", "listen:", "echo", "generate:", "null"],
      help: "Where frames go: switch (the default: to other guests of this socket), tap:NAME\n" +
        "(an interface of this machine), user (addresses by DHCP and TCP with what --allow\n" +
        "lists, through this process's own sockets: needs --allow-net), stream:PATH (a Unix socket such as passt's or\n" +
        "QEMU's -netdev stream), listen:PATH (the same, waiting for the peer),\n" +
        "echo, generate:BYTES or null (for measuring).",
    },
    "allow": {
      value: "LIST",
      help:
        "With --network=user: what guests may reach, separated by commas. NAME, *.NAME, ADDRESS[/BITS]\n" +
        "or * for everything; then :PORT for that port alone, then =HOST[:PORT] to lead it elsewhere.\n" +
        "The first that fits counts; what none fits is refused.",
    },
    "queue-pairs": {
      value: "N",
      help: "Most queue pairs a front-end may use, 1 to 128 (default 8; of a TAP device: 1).",
    },
    "pcap": {
      value: "FILE",
      offer: "file",
      help: "Write every frame to this file, for Wireshark and tcpdump.",
    },
    "mac": {
      value: "ADDRESS",
      help: "The guest's address, for front-ends that leave all to the device, such as User-Mode Linux\n" +
        "(QEMU has mac= for that). There is one queue pair then.",
    },
    "mtu": { value: "BYTES", help: "The MTU, together with --mac (QEMU has host_mtu= for that)." },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user net --socket-path=/tmp/net.sock",
      "Joins all guests that connect. Attach one in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/net.sock,reconnect-ms=500 -netdev vhost-user,id=n,chardev=c \\\n" +
      "    -device virtio-net-pci,netdev=n …",
      "share=on is needed: without it the guest's memory cannot be seen, and nothing arrives.",
    ],
    [
      "vhost-user net --socket-path=/tmp/net.sock --network=tap:tap0 --pcap=/tmp/net.pcap",
      "Connects a guest with the interface tap0 and writes down what passes.",
    ],
    [
      "passt -f -s /tmp/passt.sock & vhost-user net --socket-path=/tmp/net.sock --network=stream:/tmp/passt.sock",
      "Gives a guest this machine's network without any privilege.",
    ],
    [
      "deno run --allow-ffi --allow-net jsr:@vhost/user/cli net --socket-path=/tmp/net.sock \\\n" +
      "    --network=user --allow=deb.debian.org,*.npmjs.org:443,api.test:80=127.0.0.1:8080 --verbose",
      "A guest that reaches these and nothing else; each call is printed.",
    ],
  ],
  permissions: [{
    flags: ["--allow-net=ADDRESS:PORT,…"],
    when: "--network=user, the addresses that it leads to; for names all (--allow-net)",
  }],
  capabilities: { type: "net", features: [] },
  run: async (values, output) => {
    const { "queue-pairs": pairs, mac, mtu, pcap, allow } = values;
    const uri = String(values.network ?? "switch");
    const options = serveOptions(values, output);
    if (mtu !== undefined && mac === undefined) throw new UsageError("--mtu needs --mac");
    const address = mac === undefined ? undefined : parseMac(String(mac));
    const queuePairs = pairs === undefined
      ? uri.startsWith("tap:") || address !== undefined ? 1 : 8
      : wholeNumber("queue-pairs", String(pairs), 1, 128);
    const say = (text: string, error?: unknown) =>
      options.log?.("info", `net: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`);
    if (allow !== undefined && uri !== "user") throw new UsageError("--allow needs --network=user");
    const onError = (error: unknown) => options.log?.("warning", "net: the network failed", error);
    const network = openNetwork(uri, {
      queuePairs,
      allow: allow === undefined ? [] : String(allow).split(","),
      onPeer: say,
      onCall: say,
      onError,
    });
    const capture = pcap === undefined ? undefined : new PcapFile(String(pcap));
    try {
      const card = new NetDevice({
        network,
        queuePairs,
        capture,
        mac: address,
        mtu: mtu === undefined ? undefined : wholeNumber("mtu", String(mtu), 68, 65535),
        onError,
      });
      await serveUntilSignal(card, options, `vhost-user net: ${uri}`, output, () => {}, needsOf(uri));
      const { sentFrames, deliveredFrames, dropped, malformed } = card.counters;
      say(
        `${sentFrames} frames sent, ${deliveredFrames} delivered, ${dropped} dropped, ${malformed} malformed`,
      );
    } finally {
      capture?.close();
      network.close?.();
    }
    return 0;
  },
};
