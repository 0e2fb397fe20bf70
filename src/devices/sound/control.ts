/**
 * The control queue.
 *
 * @module
 */

import type { Chain } from "../../virtqueue/chain.ts";
import {
  channelMap,
  ChannelPosition,
  PCM_REQUEST_SIZE,
  PcmFeature,
  pcmInfo,
  QUERY_SIZE,
  setParams,
  SoundRequest,
  SoundStatus,
} from "./layout.ts";
import { PCM_RATES, PcmFormat, type PcmFormatName } from "./pcm.ts";
import type { PcmStream } from "./stream.ts";

const { OK, BAD_MSG, NOT_SUPP } = SoundStatus;
const XRUNS = 1 << PcmFeature.EVT_XRUNS;

/** Answers a control request. */
export function control(chain: Chain, streams: readonly PcmStream[]): void {
  const { writable } = chain;
  if (writable.byteLength < 4) {
    throw new RangeError(`a control request needs 4 bytes for its answer, got ${writable.byteLength}`);
  }
  // Copied once, as much as the longest request has: the guest may change it.
  const bytes = chain.read(setParams.size);
  const status = bytes.length < 4 ? BAD_MSG : handle(chain, streams, new DataView(bytes.buffer));
  writable.setUint32(0, status);
  if (status !== OK || chain.written === 0) chain.written = 4;
}

function handle(chain: Chain, streams: readonly PcmStream[], request: DataView<ArrayBuffer>): number {
  const code = request.getUint32(0, true);
  switch (code) {
    case SoundRequest.JACK_INFO:
      return list(chain, request, [], 24);
    case SoundRequest.PCM_INFO:
      return list(chain, request, streams.map(infoOf), pcmInfo.size);
    case SoundRequest.CHMAP_INFO:
      return list(chain, request, streams.map(mapOf), channelMap.size);
    case SoundRequest.PCM_SET_PARAMS:
    case SoundRequest.PCM_PREPARE:
    case SoundRequest.PCM_RELEASE:
    case SoundRequest.PCM_START:
    case SoundRequest.PCM_STOP: {
      if (request.byteLength < PCM_REQUEST_SIZE) return BAD_MSG;
      const stream = streams[request.getUint32(4, true)];
      return stream === undefined ? BAD_MSG : command(request, stream, code);
    }
    default:
      return NOT_SUPP;
  }
}

/** Answers with what is known of some of the items, each in as many bytes as the driver wants. */
function list(chain: Chain, request: DataView, items: readonly Uint8Array[], least: number): number {
  const { writable } = chain;
  if (request.byteLength < QUERY_SIZE) return BAD_MSG;
  const [first, count, size] = [4, 8, 12].map((at) => request.getUint32(at, true));
  if (size < least || first + count > items.length) return BAD_MSG;
  if (4 + count * size > writable.byteLength) return BAD_MSG;
  writable.clearBytes(4, count * size);
  for (let i = 0; i < count; i++) writable.copyFrom(items[first + i], 4 + i * size);
  chain.written = 4 + count * size;
  return OK;
}

function infoOf({ endpoint }: PcmStream): Uint8Array {
  const { formats, rates, channelsMin, channelsMax } = endpoint.range;
  const bits = (numbers: readonly number[]): bigint =>
    numbers.reduce((all, bit) => all | 1n << BigInt(bit), 0n);
  return pcmInfo.encode({
    group: 0,
    features: XRUNS,
    formats: bits(formats.map((name) => PcmFormat[name])),
    rates: bits(rates.map((rate) => PCM_RATES.indexOf(rate))),
    direction: endpoint.direction,
    channelsMin,
    channelsMax,
    padding: new Uint8Array(5),
  });
}

/** The usual places: one in the middle, two left and right; of more it is not said. */
function mapOf({ endpoint }: PcmStream): Uint8Array {
  const { direction, range: { channelsMax } } = endpoint;
  const { MONO, FL, FR, NA } = ChannelPosition;
  const positions = channelsMax === 1
    ? [MONO]
    : channelsMax === 2
    ? [FL, FR]
    : new Array<number>(channelsMax).fill(NA);
  return channelMap.encode({
    group: 0,
    direction,
    channels: channelsMax,
    positions: Uint8Array.from(positions),
  });
}

function command(request: DataView<ArrayBuffer>, stream: PcmStream, code: number): number {
  const answer = (fits: boolean): number => fits ? OK : BAD_MSG;
  switch (code) {
    case SoundRequest.PCM_SET_PARAMS:
      return parameters(request, stream);
    case SoundRequest.PCM_PREPARE:
      return answer(stream.prepare());
    case SoundRequest.PCM_START:
      return answer(stream.start());
    case SoundRequest.PCM_STOP:
      return answer(stream.stop());
    default:
      return answer(stream.release());
  }
}

function parameters(request: DataView<ArrayBuffer>, stream: PcmStream): number {
  if (request.byteLength < setParams.size) return BAD_MSG;
  const { bufferBytes, periodBytes, features, channels, format, rate } = setParams.decode(
    new Uint8Array(request.buffer),
  );
  const { formats, rates, channelsMin, channelsMax } = stream.endpoint.range;
  const name = (Object.keys(PcmFormat) as PcmFormatName[]).find((each) => PcmFormat[each] === format);
  if (name === undefined || !formats.includes(name) || !rates.includes(PCM_RATES[rate])) return NOT_SUPP;
  if (channels < channelsMin || channels > channelsMax || (features & ~XRUNS) !== 0) return NOT_SUPP;
  if (periodBytes === 0 || bufferBytes === 0 || bufferBytes % periodBytes !== 0) return BAD_MSG;
  return stream.setParams({ format: name, channels, rate: PCM_RATES[rate] }, (features & XRUNS) !== 0)
    ? OK
    : BAD_MSG;
}
