import { type Chain, defineDevice, type Device } from "../../../mod.ts";

/** What the function below is called with. */
export interface CounterOptions {
  readonly first: number;
  /** Throws out of a timer, after so many requests. */
  readonly fail?: number;
}

/**
 * Answers with a number that each thread counts for itself, and the byte that was written to the configuration
 * space: three rings with handlers.
 */
export default function counter({ first, fail = 0 }: CounterOptions): Device {
  let next = first;
  const config = new Uint8Array(8);
  const answer = (chain: Chain): Promise<void> | void => {
    chain.write(Uint8Array.of(next++, config[0]));
    if (next - first === fail) {
      setTimeout(() => {
        throw new Error("nobody catches this");
      });
      return new Promise<void>((resolve) => setTimeout(resolve, 5));
    }
  };
  return defineDevice({
    type: 42,
    name: "counter",
    queues: [answer, answer, answer],
    config: {
      read: () => config,
      write: (offset, data) => config.set(data, offset),
    },
  });
}
