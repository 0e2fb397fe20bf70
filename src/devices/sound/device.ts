/**
 * The sound device.
 *
 * @module
 */

import { Device, type DeviceBehaviour, type OwnedQueue, type QueueOwner } from "../../backend/device.ts";
import { logToStderr } from "../../backend/log.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { control } from "./control.ts";
import type { PlayingStream, RecordingStream, SoundInput, SoundOutput } from "./endpoints.ts";
import {
  SOUND_EVENT_SIZE,
  soundConfig,
  SoundEvent,
  SoundStatus,
  TRANSFER_HEADER_SIZE,
  TRANSFER_STATUS_SIZE,
} from "./layout.ts";
import { ANY_PCM, PCM_RATES, type PcmRange } from "./pcm.ts";
import { type Endpoint, PcmStream } from "./stream.ts";
import { soundRequests } from "./request_format.ts";

/** What a sound card is made of. At least one of output and input. */
export interface SoundOptions {
  /** Where what the guest plays goes. Stays the caller's. */
  readonly output?: SoundOutput;
  /** Where what the guest records comes from. Stays the caller's. */
  readonly input?: SoundInput;
  /**
   * How many times faster than real time it is; 1, what guests expect, by default. As fast as possible it can never be: a guest
   * tells where the card is by how much of its buffer came back, and all of it at once looks like nothing.
   */
  readonly speed?: number;
  /** Told of exceptions in output and input. Says so on the standard error output by default. */
  readonly onError?: (error: unknown) => void;
}

/** Most times faster than real time. */
const MOST_SPEED = 1000;

function checkRange(name: string, { formats, rates, channelsMin, channelsMax }: PcmRange): void {
  const fine = formats.length > 0 && rates.length > 0 && rates.every((rate) => PCM_RATES.includes(rate)) &&
    channelsMin >= 1 && channelsMin <= channelsMax && channelsMax <= 18;
  if (fine) return;
  throw new RangeError(
    `${name}.range needs formats, rates of ${PCM_RATES.join(", ")} and 1 to 18 channels, ` +
      `got ${formats.join(", ")}; ${rates.join(", ")}; ${channelsMin} to ${channelsMax}`,
  );
}

/**
 * A sound card (virtio device 25), for one guest at a time.
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { SoundDevice, ToneInput, WavOutput } from "@vhost/user/devices/sound";
 *
 * const output = new WavOutput("/tmp/played.wav");
 * const card = new SoundDevice({ output, input: new ToneInput(440) });
 * const server = await serve(card, { socketPath: `/tmp/sound-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * output.close();
 * ```
 */
export class SoundDevice extends Device {
  /**
   * A card with an output, an input or both.
   *
   * @throws {RangeError}
   */
  constructor(options: SoundOptions) {
    const { output, input, speed = 1 } = options;
    if (!(speed > 0 && speed <= MOST_SPEED)) {
      throw new RangeError(`speed must be more than 0 and at most ${MOST_SPEED}, got ${speed}`);
    }
    if (output === undefined && input === undefined) {
      throw new RangeError("a sound card needs an output or an input");
    }
    if (output?.range !== undefined) checkRange("output", output.range);
    if (input?.range !== undefined) checkRange("input", input.range);
    super({
      type: 25,
      name: "sound",
      requests: soundRequests,
      exclusive: true,
      connect: () => new SoundFrontEnd(options),
    });
  }
}

/** An output as the end of a stream. */
function playback(output: SoundOutput): Endpoint {
  let stream: PlayingStream | undefined;
  return {
    direction: 0,
    range: output.range ?? ANY_PCM,
    open: (params) => {
      stream = output.open(params);
    },
    move: (bytes) => stream?.write(bytes),
    pause: (paused) => stream?.pause?.(paused),
    close: () => {
      const open = stream;
      stream = undefined;
      open?.close();
    },
  };
}

/** An input as the end of a stream. */
function capture(input: SoundInput): Endpoint {
  let stream: RecordingStream | undefined;
  return {
    direction: 1,
    range: input.range ?? ANY_PCM,
    open: (params) => {
      stream = input.open(params);
    },
    move: (bytes) => stream?.read(bytes),
    pause: () => {},
    close: () => {
      const open = stream;
      stream = undefined;
      open?.close();
    },
  };
}

/** The card, for one front-end. */
class SoundFrontEnd implements DeviceBehaviour {
  readonly queues: DeviceBehaviour["queues"];
  readonly config: { read(): Uint8Array };
  readonly #streams: readonly PcmStream[];

  constructor({ output, input, speed = 1, onError }: SoundOptions) {
    const tell = onError ?? ((error) => logToStderr("warning", "sound: output or input failed", error));
    const events = new Events();
    const endpoints = [
      ...output === undefined ? [] : [playback(output)],
      ...input === undefined ? [] : [capture(input)],
    ];
    const streams = endpoints.map((endpoint, id) =>
      new PcmStream(endpoint, speed, {
        xrun: () => events.send(SoundEvent.PCM_XRUN, id),
        failed: tell,
      })
    );
    this.#streams = streams;
    this.queues = [
      (chain) => control(chain, streams),
      events,
      new Transfers(streams, 0),
      new Transfers(streams, 1),
    ];
    this.config = {
      read: () =>
        soundConfig.encode({ jacks: 0, streams: streams.length, chmaps: streams.length, controls: 0 }),
    };
  }

  /** {@link DeviceBehaviour.reset}. */
  reset(): void {
    for (const stream of this.#streams) stream.reset();
  }

  /** {@link DeviceBehaviour.disconnected}. */
  disconnected(): void {
    this.reset();
  }
}

/** The ring for what is played, or for what is recorded. */
class Transfers implements QueueOwner {
  readonly #streams: readonly PcmStream[];
  readonly #direction: number;

  constructor(streams: readonly PcmStream[], direction: number) {
    this.#streams = streams;
    this.#direction = direction;
  }

  work(queue: OwnedQueue): void {
    for (let chain = queue.take(); chain !== null; chain = queue.take()) this.#take(chain, queue);
  }

  #take(chain: Chain, queue: OwnedQueue): void {
    const { readable, writable } = chain;
    if (writable.byteLength < TRANSFER_STATUS_SIZE) return queue.complete(chain);
    const stream = readable.byteLength < TRANSFER_HEADER_SIZE
      ? undefined
      : this.#streams[readable.getUint32(0)];
    if (stream !== undefined && stream.endpoint.direction === this.#direction) {
      return stream.add(chain, queue);
    }
    const at = this.#direction === 0 ? 0 : writable.byteLength - TRANSFER_STATUS_SIZE;
    writable.setUint32(at, SoundStatus.BAD_MSG);
    writable.setUint32(at + 4, 0);
    chain.written = TRANSFER_STATUS_SIZE;
    queue.complete(chain);
  }

  stop(): void {
    for (const stream of this.#streams) {
      if (stream.endpoint.direction === this.#direction) stream.ringStopped();
    }
  }
}

/** The ring for events. One that finds no buffer is lost, as the specification has it. */
class Events implements QueueOwner {
  #queue: OwnedQueue | undefined;

  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = undefined;
  }

  send(event: number, data: number): void {
    const chain = this.#queue?.take() ?? null;
    if (chain === null) return;
    if (chain.writable.byteLength >= SOUND_EVENT_SIZE) {
      chain.writable.setUint32(0, event);
      chain.writable.setUint32(4, data);
      chain.written = SOUND_EVENT_SIZE;
    }
    this.#queue?.complete(chain);
    this.#queue?.publish();
  }
}
