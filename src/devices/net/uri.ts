/**
 * Networks by a short text, as the command line takes it.
 *
 * @module
 */

import { ETHERNET_HEADER, MAX_FRAME } from "./layout.ts";
import type { Network } from "./network.ts";
import { EchoNetwork, GeneratorNetwork, NullNetwork } from "./simple_networks.ts";
import { StreamNetwork } from "./stream_network.ts";
import { SwitchNetwork } from "./switch_network.ts";
import { proxy } from "./user/proxy.ts";
import { AllowList } from "./user/rules.ts";
import { UserNetwork } from "./user/user_network.ts";
import { TapNetwork } from "./tap_network.ts";

/** What {@link openNetwork} may be told besides. */
export interface OpenNetworkOptions {
  /** Queue pairs of the card: a TAP device gets as many queues. 1 by default. */
  readonly queuePairs?: number;
  /** Rules of an {@link AllowList}: what guests of a user-mode network may reach. Nothing by default. */
  readonly allow?: readonly string[];
  /** Told of the calls of guests in a user-mode network. */
  readonly onCall?: (text: string) => void;
  /** Told of what goes wrong with them. */
  readonly onError?: (error: unknown) => void;
  /** Told when the peer of a stream comes and goes. */
  readonly onPeer?: (text: string, error?: unknown) => void;
}

/**
 * Opens `switch`, `user`, `tap:NAME`, `stream:PATH`, `listen:PATH`, `echo`, `generate:BYTES` or `null`.
 *
 * @throws {TypeError} for anything else
 * @throws {OsError} when a device or socket cannot be opened
 */
export function openNetwork(uri: string, options: OpenNetworkOptions = {}): Network {
  const { queuePairs = 1, onPeer, allow = [], onCall, onError } = options;
  const at = uri.indexOf(":");
  const kind = at < 0 ? uri : uri.slice(0, at);
  const rest = at < 0 ? "" : uri.slice(at + 1);
  if ((rest !== "") === ["tap", "stream", "listen", "generate"].includes(kind)) {
    switch (kind) {
      case "switch":
        return new SwitchNetwork();
      case "user": {
        const list = new AllowList(allow);
        return new UserNetwork({
          names: (name) => list.knows(name),
          onConnection: proxy(list, onCall),
          onError,
        });
      }
      case "echo":
        return new EchoNetwork();
      case "generate":
        return new GeneratorNetwork(testFrame(rest));
      case "null":
        return new NullNetwork();
      case "tap":
        return new TapNetwork({ name: rest, queues: queuePairs });
      case "stream":
      case "listen":
        return new StreamNetwork({ path: rest, listen: kind === "listen", onPeer });
    }
  }
  throw new TypeError(
    `network must be switch, user, tap:NAME, stream:PATH, listen:PATH, echo, generate:BYTES or null; got ${
      JSON.stringify(uri)
    }`,
  );
}

/** A broadcast of the type that is reserved for experiments. */
function testFrame(size: string): Uint8Array {
  const length = /^\d+$/.test(size) ? Number(size) : NaN;
  if (!(length >= ETHERNET_HEADER && length <= MAX_FRAME)) {
    throw new TypeError(`generate: a frame has ${ETHERNET_HEADER} to ${MAX_FRAME} bytes, got ${size}`);
  }
  const frame = new Uint8Array(length);
  frame.fill(0xff, 0, 6);
  frame.set([0x02, 0, 0, 0, 0, 1, 0x88, 0xb5], 6);
  return frame;
}

/**
 * An Ethernet address such as `52:54:00:12:34:56`.
 *
 * @throws {TypeError}
 */
export function parseMac(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new TypeError(
      `an Ethernet address is six bytes such as 52:54:00:12:34:56, got ${JSON.stringify(text)}`,
    );
  }
  const bytes = Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
  if ((bytes[0] & 1) !== 0) {
    throw new TypeError(`an Ethernet address of one card has an even first byte, got ${text}`);
  }
  return bytes;
}
