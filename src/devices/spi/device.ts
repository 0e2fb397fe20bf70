/**
 * The SPI controller.
 *
 * @module
 */

import { Device } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { SpiBus, SpiDirection } from "./bus.ts";
import {
  spiConfig,
  SpiMode,
  SpiResult,
  SpiSupport,
  type SpiTransferHead,
  spiTransferHead,
} from "./layout.ts";
import { spiRequests } from "./request_format.ts";

/** The most bytes of a transfer: 16 MiB, the largest flash that three bytes of address reach. */
const MAX_TRANSFER = 1 << 24;

/** What a controller is made of. */
export interface SpiOptions {
  /** What is behind it; stays the caller's. */
  readonly bus: SpiBus;
  /** Told of exceptions in the bus; the guest's transfer has failed then. */
  readonly onError?: (error: unknown) => void;
}

/** An SPI controller for virtual machines (virtio device 45). One guest at a time has it. */
export class SpiDevice extends Device {
  /** Makes one. */
  constructor(options: SpiOptions) {
    const { bus, onError = () => {} } = options;
    super({
      type: 45,
      name: "spi",
      requests: spiRequests,
      exclusive: true,
      queues: [(chain) => request(chain, bus, onError)],
      config: { read: () => spiConfig.encode(bus.config) },
    });
  }
}

/** Carries out one transfer: head and bytes sent, then room for bytes received and the result. */
function request(chain: Chain, bus: SpiBus, onError: (error: unknown) => void): void {
  const { readable, writable } = chain;
  const room = writable.byteLength - 1;
  if (room < 0) return;
  let result: number = SpiResult.PARAM_ERR;
  let input: Uint8Array | undefined;
  const sent = readable.byteLength - spiTransferHead.size;
  if (sent >= 0 && sent <= MAX_TRANSFER && room <= MAX_TRANSFER) {
    const head = chain.readStruct(spiTransferHead);
    // Of both directions at once the lengths are the same (virtio 1.4, SPI, "Device Operation").
    const lengths = sent === 0 || room === 0 || sent === room;
    if (lengths && isSupported(head, bus)) {
      const direction: SpiDirection = room === 0 ? "send" : sent === 0 ? "receive" : "both";
      const output = sent === 0 ? new Uint8Array(room) : chain.read();
      input = new Uint8Array(output.length);
      try {
        bus.transfer(head, output, input, direction);
        result = SpiResult.OK;
      } catch (error) {
        onError(error);
        result = SpiResult.TRANS_ERR;
      }
    }
  }
  if (result === SpiResult.OK && input !== undefined) writable.copyFrom(input.subarray(0, room));
  else writable.clearBytes(0, room);
  writable.setUint8(room, result);
  chain.written = room + 1;
}

/** Whether the controller can do what a head asks for. */
function isSupported(head: SpiTransferHead, { config }: SpiBus): boolean {
  const { mode, bitsPerWord } = head;
  const functions = config.modeFuncSupported;
  const needs = ((mode & SpiMode.CPHA) !== 0 ? SpiSupport.CPHA_1 : SpiSupport.CPHA_0) |
    ((mode & SpiMode.CPOL) !== 0 ? SpiSupport.CPOL_1 : SpiSupport.CPOL_0) |
    ((mode & SpiMode.CS_HIGH) !== 0 ? SpiSupport.CS_HIGH : 0) |
    ((mode & SpiMode.LSB_FIRST) !== 0 ? SpiSupport.LSB_FIRST : 0) |
    ((mode & SpiMode.LOOP) !== 0 ? SpiSupport.LOOPBACK : 0);
  const word = bitsPerWord >= 1 && bitsPerWord <= 32 ? 1 << bitsPerWord - 1 : 0;
  return head.chipSelectId < config.csMaxNumber &&
    head.csChange <= 1 && (head.csChange === 0 || config.csChangeSupported !== 0) &&
    isWidth(head.txNbits, config.txNbitsSupported) && isWidth(head.rxNbits, config.rxNbitsSupported) &&
    bitsPerWord > 0 && (config.bitsPerWordMask === 0 || (config.bitsPerWordMask & word) !== 0) &&
    mode < 0x20 && (functions & needs) === needs &&
    (config.maxFreqHz === 0 || head.freq <= config.maxFreqHz) &&
    head.wordDelayNs <= config.maxWordDelayNs && head.csSetupNs <= config.maxCsSetupNs &&
    head.csDelayHoldNs <= config.maxCsHoldNs && head.csChangeDelayInactiveNs <= config.maxCsInactiveNs;
}

function isWidth(bits: number, supported: number): boolean {
  return bits <= 1 || (bits === 2 || bits === 4 || bits === 8) && (supported & bits >> 1) !== 0;
}
