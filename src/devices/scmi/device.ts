/**
 * The SCMI device.
 *
 * @module
 */

import { Device } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { BASE, baseProtocol } from "./base.ts";
import {
  COMMAND,
  encodeValues,
  ScmiError,
  ScmiMessage,
  ScmiParameters,
  type ScmiProtocol,
  ScmiStatus,
  type ScmiValues,
} from "./protocol.ts";
import { scmiRequests } from "./request_format.ts";

/** Bytes of the header of a message: bits 0 to 7 the command, 8 and 9 the kind, 10 to 17 the protocol, 18 to 27 a token. */
const HEADER = 4;
/** The most bytes of a command that are looked at: Linux sends up to 128. */
const MAX_COMMAND = 1024;

/** What an SCMI device is made of. */
export interface ScmiOptions {
  /** Protocols besides the base protocol. */
  readonly protocols: readonly ScmiProtocol[];
  /** Told why a command has failed by no fault of the guest's. */
  readonly onError?: (error: unknown) => void;
}

/**
 * A platform's sensors, clocks and the like for virtual machines (virtio device 32; virtio 1.4, section 5.19, "SCMI Device").
 * It sends no notifications: the feature P2A_CHANNELS is not offered.
 */
export class ScmiDevice extends Device {
  /**
   * Makes one.
   *
   * @throws {RangeError} for a number of a protocol that is there twice or cannot be
   */
  constructor(options: ScmiOptions) {
    const { protocols, onError = () => {} } = options;
    const byId = new Map<number, ScmiProtocol>([[BASE, baseProtocol(protocols)]]);
    for (const protocol of protocols) {
      const { id } = protocol;
      if (!(id > BASE && id <= 0xff) || byId.has(id)) {
        throw new RangeError(
          `a protocol has a number from 0x11 to 0xff of its own, got 0x${id.toString(16)}`,
        );
      }
      byId.set(id, protocol);
    }
    super({
      type: 32,
      name: "scmi",
      requests: scmiRequests,
      // Front-ends have an event ring whatever was negotiated; nothing happens on it.
      queues: [(chain) => command(chain, byId, onError), {}],
    });
  }
}

/** Carries out one command. */
function command(
  chain: Chain,
  protocols: ReadonlyMap<number, ScmiProtocol>,
  onError: (error: unknown) => void,
): void {
  const { readable, writable } = chain;
  // Without room for a status there is nothing to say.
  if (readable.byteLength < HEADER || writable.byteLength < HEADER + 4) return;
  const header = readable.getUint32(0);
  const room = writable.byteLength - HEADER - 4;
  let status: number = ScmiStatus.SUCCESS;
  let values = new Uint8Array(0);
  try {
    if (readable.byteLength > MAX_COMMAND) throw new ScmiError(ScmiStatus.PROTOCOL_ERROR);
    const parameters = new Uint8Array(readable.byteLength - HEADER);
    readable.copyTo(parameters, HEADER);
    values = new Uint8Array(
      encodeValues(carryOut(header, protocols, new ScmiParameters(parameters), room), room),
    );
  } catch (error) {
    status = error instanceof ScmiError ? error.status : ScmiStatus.GENERIC_ERROR;
    if (status === ScmiStatus.GENERIC_ERROR || status === ScmiStatus.HARDWARE_ERROR) onError(error);
    values = new Uint8Array(0);
  }
  writable.setUint32(0, header);
  writable.setUint32(HEADER, status >>> 0);
  writable.copyFrom(values, HEADER + 4);
  chain.written = HEADER + 4 + values.length;
}

function carryOut(
  header: number,
  protocols: ReadonlyMap<number, ScmiProtocol>,
  parameters: ScmiParameters,
  room: number,
): ScmiValues {
  const protocol = protocols.get(header >>> 10 & 0xff);
  if ((header >>> 8 & 3) !== COMMAND || protocol === undefined) throw new ScmiError(ScmiStatus.NOT_SUPPORTED);
  const has = (message: number): boolean =>
    message <= ScmiMessage.MESSAGE_ATTRIBUTES || message in protocol.messages;
  const message = header & 0xff;
  switch (message) {
    case ScmiMessage.VERSION:
      return [protocol.version];
    case ScmiMessage.ATTRIBUTES:
      return protocol.attributes();
    case ScmiMessage.MESSAGE_ATTRIBUTES:
      if (!has(parameters.u32())) throw new ScmiError(ScmiStatus.NOT_FOUND);
      return [0];
    default:
      if (!has(message)) throw new ScmiError(ScmiStatus.NOT_SUPPORTED);
      return protocol.messages[message](parameters, room);
  }
}
