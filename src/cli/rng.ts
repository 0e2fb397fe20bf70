/**
 * `vhost-user rng`.
 *
 * @module
 */

import {
  FileSource,
  type RandomSource,
  type RateLimit,
  RngDevice,
  SystemSource,
} from "../devices/rng/mod.ts";
import { type Command, UsageError } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";

/** `BYTES` or `BYTES/s`, both perhaps with `:PERIOD`. */
function rateLimitOf(text: string): RateLimit {
  const match = /^(\d+)([KM]?)(?:\/s)?(?::(\d+))?$/.exec(text);
  if (match === null) {
    throw new UsageError(
      `--rate-limit must be BYTES/s or BYTES:PERIOD with the period in ms, such as 1K/s or 512:100; got ${
        JSON.stringify(text)
      }`,
    );
  }
  const [, number, unit, period] = match;
  const bytes = Number(number) * ({ "": 1, K: 1024, M: 1024 * 1024 }[unit] ?? 1);
  return { bytes, periodMs: period === undefined ? undefined : Number(period) };
}

function sourceOf(text: string | undefined): RandomSource {
  if (text === undefined) return new SystemSource();
  return text === "-" ? new FileSource({ fd: 0 }) : new FileSource({ path: text });
}

/** Serves an entropy device. */
export const rng: Command = {
  summary: "Serves a source of entropy to virtual machines.",
  options: {
    "rng-source": {
      value: "FILE",
      offer: "file",
      help: "Where random bytes come from: a file, a device such as /dev/hwrng, a pipe, or - for\n" +
        "the standard input. A file is read once, to its end. Default: the system's generator.",
    },
    "rate-limit": {
      value: "LIMIT",
      help: "BYTES/s, or BYTES:PERIOD with the period in ms: what all guests together get at most.\n" +
        "K and M stand for 1024 and 1048576, such as 1K/s. Default: no limit.",
    },
    ...servingOptions,
  },
  examples: [
    ["vhost-user rng --socket-path=/tmp/rng.sock", "Serves the system's generator. Attach it in QEMU by"],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/rng.sock -device vhost-user-rng-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and requests hang.",
    ],
    [
      "vhost-user rng --socket-path=/tmp/rng.sock --rng-source=/dev/hwrng --rate-limit=1K/s",
      "Hands on a hardware generator, 1 KiB a second.",
    ],
  ],
  capabilities: { type: "rng", features: ["rng-source", "rate-limit"] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const limit = values["rate-limit"];
    const rateLimit = limit === undefined ? undefined : rateLimitOf(String(limit));
    const from = values["rng-source"] as string | undefined;
    const source = sourceOf(from);
    try {
      const device = new RngDevice({
        source,
        rateLimit,
        onError: (error) => options.log?.("error", "rng: the source failed; guests wait", error),
      });
      await serveUntilSignal(device, options, `vhost-user rng: ${from ?? "the system"}`, output, () => {});
    } finally {
      source.close?.();
    }
    return 0;
  },
};
