/**
 * Serving a module anew when it changes.
 *
 * @module
 */

import process from "node:process";
import { setNonblocking } from "../../../ffi/fd.ts";
import { Listener } from "../../../ffi/listener.ts";
import { isListening } from "../../../ffi/socket.ts";
import { close } from "../../../ffi/fd.ts";
import type { Options, Output, Values } from "../command.ts";
import { UsageError } from "../command.ts";
import { serveOptions } from "../serving.ts";
import { resolutionWords, wordsBefore } from "../own_program.ts";
import { Sources } from "./sources.ts";
import { Version } from "./version.ts";

/** What the process that watches does itself. */
const OWN: ReadonlySet<string> = new Set(["watch", "standby", "socket-path", "socket-mode", "fd"]);

/** The command line of a version. */
function argsOf(values: Values, options: Options): string[] {
  const args = ["run", String(values.MODULE)];
  for (const name of Object.keys(options)) {
    const value = values[name];
    if (value === undefined || value === false || OWN.has(name)) continue;
    if (value === true) args.push(`--${name}`);
    else for (const each of Array.isArray(value) ? value : [value]) args.push(`--${name}=${each}`);
  }
  return args;
}

/** The socket that all versions serve on. */
function listen(values: Values, output: Output): { fd: number; name: string; close(): void } {
  const { socketPath, fd = -1, socketMode = 0o600 } = serveOptions(values, output);
  if (socketPath !== undefined) {
    const listener = new Listener(socketPath, socketMode);
    return { fd: listener.fd, name: socketPath, close: () => listener.close() };
  }
  if (!isListening(fd)) {
    throw new UsageError(
      "--watch needs a socket that listens: a connected one (--fd) is gone with the first version",
    );
  }
  setNonblocking(fd);
  return { fd, name: `descriptor ${fd}`, close: () => close(fd) };
}

/**
 * Serves a module until a signal comes, version after version.
 *
 * A version is loaded beside the one that serves. When that has gone well the old one ends, and only then the new one makes its
 * device: both may want the same file or interface. A module that cannot be loaded changes nothing. One whose device cannot be
 * made leaves nobody serving; front-ends wait in the socket's queue for the next change.
 *
 * @returns the exit code
 */
export async function watch(
  module: URL,
  values: Values,
  options: Options,
  output: Output,
): Promise<number> {
  const words = wordsBefore();
  const resolution = resolutionWords(words);
  const args = argsOf(values, options);
  const listener = listen(values, output);
  const say = (text: string): void => output.error(`vhost-user run: ${values.MODULE} ${text}`);
  const stop = new AbortController();
  let serving: Version | undefined;
  const signals = {
    SIGTERM: () => stop.abort(),
    SIGINT: () => stop.abort(),
    SIGHUP: () => serving?.signal("SIGHUP"),
  } as const;
  for (const [signal, action] of Object.entries(signals)) process.on(signal, action);
  let next: Version | undefined;
  try {
    while (!stop.signal.aborted) {
      const sources = await Sources.of(module, resolution);
      if (stop.signal.aborted) break;
      const waiting = new AbortController();
      const aborted = AbortSignal.any([waiting.signal, stop.signal]);
      const changed = sources.changed(aborted).then(() => true, () => false);
      const version = next = new Version(words, args, listener.fd);
      // A module may take for ever to load, and is then given up when it changes.
      const loaded = await Promise.race([version.loaded, changed.then(() => undefined)]);
      if (loaded === true && !stop.signal.aborted) {
        const before = serving;
        serving = version;
        if (await before?.end()) say("did not end by itself, and was killed");
        next = undefined;
        void version.serve().then((serves) => {
          if (serves) output.out(`vhost-user run: ${values.MODULE} on ${listener.name}`);
        });
        void version.ended.then((how) => {
          if (serving !== version) return;
          serving = undefined;
          // A signal of the terminal reaches both, the other one perhaps first.
          setTimeout(() => {
            if (!stop.signal.aborted) say(`has ended (${how}); front-ends wait until it changes`);
          }, 100);
        });
      } else {
        await version.end();
        next = undefined;
        if (loaded === false && !stop.signal.aborted) {
          const who = serving === undefined ? "nobody serves" : "the version before goes on serving";
          say(`cannot be served: ${who} until it changes`);
        }
      }
      await changed;
      waiting.abort();
      if (!stop.signal.aborted) say("has changed");
    }
  } finally {
    const last = serving;
    serving = undefined;
    await Promise.all([last?.end(), next?.end()]);
    listener.close();
    for (const [signal, action] of Object.entries(signals)) process.off(signal, action);
  }
  return 0;
}
