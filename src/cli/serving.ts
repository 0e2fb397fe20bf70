/**
 * What the commands that serve a device have in common.
 *
 * @module
 */

import process from "node:process";
import {
  describeTakeover,
  type Device,
  logToStderr,
  type Needs,
  Reactor,
  serve,
  type ServeOptions,
  type Server,
} from "../../mod.ts";
import { activatedSockets, ReadyNotice } from "../../ffi/service_manager.ts";
import { userIdOf } from "../../ffi/users.ts";
import { describeMessage } from "../tools/describe.ts";
import {
  fileMode,
  type Options,
  type Output,
  type Permission,
  underHeading,
  UsageError,
  type Values,
  wholeNumber,
} from "./command.ts";
import { limitOption, limitsFrom } from "./limits.ts";
import { commandLog, loggingOptions } from "./logging.ts";
import type { MetricsListener } from "./metrics_listener.ts";
import { startSuccessor } from "./successor.ts";
import { enterSandbox, type SandboxMode, sandboxMode, sandboxOption, withSockets } from "./sandbox.ts";

/** Options of every command that serves a device. */
export const servingOptions: Options = underHeading("Serving", {
  "socket-path": {
    value: "PATH",
    offer: "file",
    help: "Listen on this Unix socket. Excludes --fd. Without both, the socket is the one that systemd\n" +
      "has opened (socket activation: LISTEN_FDS).",
  },
  "fd": {
    value: "FDNUM",
    help: "Use this inherited socket, listening or connected. Excludes --socket-path.",
  },
  "socket-mode": { value: "MODE", help: "Permission bits of the socket file, octal (default 600)." },
  "allow-uid": {
    value: "USERS",
    help: "Serve front-ends of these users alone: numbers or names, with commas between. Those of\n" +
      "others may connect where --socket-mode lets them, and are turned away.",
  },
  ...sandboxOption,
  "poll-us": {
    value: "N",
    help: "Keep looking at a busy ring for up to N µs before sleeping (default 50; 0: sleep at once).",
  },
  "workers": {
    value: "N",
    help: "Run the rings in N threads, 1 to 64 (default: in none of their own).",
  },
  "iommu": { help: "Offer ACCESS_PLATFORM, for QEMU's iommu_platform=on." },
  "inband-notifications": {
    help: "Offer notifications as messages, for User-Mode Linux and other simulators.",
  },
  "fault": {
    value: "RULE",
    multiple: true,
    help: "Have requests go wrong, such as blk.write:every=100:error=EIO; may be given several times.\n" +
      "See docs/faults.md.",
  },
  "limit": limitOption,
  "takeover": {
    help:
      "Take over from the process that serves --socket-path now, if there is one: its front-ends notice a\n" +
      "pause at most. It ends; if that fails, it serves on and this command fails. SIGUSR2\n" +
      "starts the same command line again in this way, if deno has --allow-run and --allow-env and\n" +
      "the sandbox is off.",
  },
  "metrics-listen": {
    value: "WHERE",
    help:
      "Serve metrics for Prometheus at [ADDRESS:]PORT, on this machine alone without an ADDRESS, or at\n" +
      "unix:PATH. Needs deno's --allow-net=127.0.0.1 (or ADDRESS, or unix:PATH; for that one\n--allow-read=PATH and --allow-write=PATH too).",
  },
  ...loggingOptions,
});

/** What `--workers` needs. */
export const workersPermission: Permission = {
  flags: ["--allow-read=CHECKOUT/src,CHECKOUT/ffi"],
  when: "--workers, in a checkout",
};

/** How a command serves. */
export interface ServingOptions extends ServeOptions {
  /** Rules by which requests go wrong. */
  readonly faults: readonly string[];
  /** How much it insists on its sandbox. */
  readonly sandbox: SandboxMode;
  /** Where to serve metrics. */
  readonly metricsListen?: string;
}

function userIds(text: string): number[] {
  return text.split(",").map((each) => {
    if (/^\d+$/.test(each)) return wholeNumber("allow-uid", each, 0, 0xffff_fffe);
    const uid = userIdOf(each);
    if (uid === undefined) throw new UsageError(`--allow-uid: there is no user '${each}'`);
    return uid;
  });
}

/** The descriptor to serve when no other socket is given: `--fd`, or what systemd has opened. */
function inherited(path: unknown, fd: unknown): number | undefined {
  if (path !== undefined && fd !== undefined) throw new UsageError("give either --socket-path or --fd");
  if (path !== undefined) return undefined;
  if (fd !== undefined) return wholeNumber("fd", String(fd), 0, 1 << 20);
  const sockets = activatedSockets(process.pid);
  if (sockets.length === 0) {
    throw new UsageError("give either --socket-path or --fd; no socket activation has passed a socket");
  }
  if (sockets.length > 1) {
    const last = sockets[sockets.length - 1];
    throw new UsageError(
      `socket activation has passed ${sockets.length} sockets, and a device has one: ` +
        `choose from --fd=${sockets[0]} to --fd=${last}`,
    );
  }
  return sockets[0];
}

/** The options of {@link servingOptions}. */
export function serveOptions(values: Values, output: Output): ServingOptions {
  const { "socket-path": path, fd, "socket-mode": mode, "poll-us": poll, workers, trace, takeover } = values;
  const { "allow-uid": users } = values;
  const descriptor = inherited(path, fd);
  if (takeover === true && path === undefined) throw new UsageError("--takeover needs --socket-path");
  const { log, trace: print } = commandLog(values, output);
  const metricsListen = values["metrics-listen"] as string | undefined;
  return {
    socketPath: path as string | undefined,
    fd: descriptor,
    socketMode: mode === undefined ? undefined : fileMode("socket-mode", String(mode)),
    allowUids: users === undefined ? undefined : userIds(String(users)),
    sandbox: sandboxMode(values),
    pollUs: poll === undefined ? undefined : wholeNumber("poll-us", String(poll), 0, 1_000_000),
    workers: workers === undefined ? undefined : wholeNumber("workers", String(workers), 1, 64),
    iommu: values.iommu === true,
    inBandNotifications: values["inband-notifications"] === true,
    faults: (values.fault ?? []) as readonly string[],
    limits: values.limit === undefined ? undefined : limitsFrom(values.limit as readonly string[]),
    takeover: path === undefined ? undefined : takeover === true ? "take" : "allow",
    log,
    onSession: trace !== true ? undefined : (session) => {
      const about = { event: "message", session: session.number } as const;
      session.connection.tap = (direction, message) => print(describeMessage(direction, message), about);
    },
    metricsListen,
    measure: metricsListen !== undefined,
  };
}

/** A device and how it is served. */
export interface Served {
  /** The device, or the URL of a module that makes it. */
  readonly device: Device | URL;
  /** How it is served. */
  readonly options: ServingOptions;
  /** What is being served, for people. */
  readonly what: string;
}

/**
 * Serves until a signal comes or the front-end of a connected `--fd` leaves.
 *
 * @param what is being served, for people
 * @param onHangup called on SIGHUP
 * @param needs what the device still needs of the system, now that it is open
 */
export function serveUntilSignal(
  device: Device | URL,
  options: ServingOptions,
  what: string,
  output: Output,
  onHangup: () => void,
  needs: Needs = {},
): Promise<void> {
  return serveAllUntilSignal([{ device, options, what }], output, onHangup, needs);
}

/** Serves one device, with its faults. */
async function serveOne({ device, options }: Served, output: Output): Promise<Server> {
  const { faults } = options;
  if (faults.length === 0) return await serve(device, options);
  const [{ FaultRuleError, withFaults }, { makeDevice }] = await Promise.all([
    import("../faults/mod.ts"),
    import("../backend/threads/make_device.ts"),
  ]);
  const source = device instanceof URL ? { module: device.href, options: options.deviceOptions } : undefined;
  const made = source === undefined ? undefined : await makeDevice(source);
  try {
    const faulty = withFaults(made ?? device as Device, faults, source);
    const server = await serve(faulty, options);
    void server.finished.then(() => {
      made?.close();
      for (const { rule, requests, faults } of faulty.faults) {
        output.out(`fault ${rule}: ${faults} of ${requests} requests`);
      }
    });
    return server;
  } catch (error) {
    made?.close();
    throw error instanceof FaultRuleError ? new UsageError(error.message) : error;
  }
}

/** The same with several devices: until a signal comes or all front-ends of a connected `--fd` have left. */
export async function serveAllUntilSignal(
  all: readonly Served[],
  output: Output,
  onHangup: () => void,
  needs: Needs = {},
): Promise<void> {
  const servers: Server[] = [];
  let metrics: MetricsListener | undefined;
  let ready: ReadyNotice | undefined;
  const stop = () => {
    servers.forEach((server) => server.close());
    metrics?.close();
  };
  const signals = {
    SIGTERM: stop,
    SIGINT: stop,
    SIGHUP: onHangup,
    SIGUSR2: () => startSuccessor(output),
  } as const;
  try {
    const [{ options: { sandbox, log = logToStderr } }] = all;
    // First, so that nothing that takes a turn of the event loop comes between listening and the sandbox.
    if (sandbox !== "off") await Reactor.shared().prepare();
    for (const each of all) servers.push(await serveOne(each, output));
    const where = all.find(({ options }) => options.metricsListen !== undefined)?.options.metricsListen;
    if (where !== undefined) {
      // Others do without a server of HTTP.
      const { MetricsListener } = await import("./metrics_listener.ts");
      metrics = await MetricsListener.listen(where, servers);
    }
    ready = ReadyNotice.open();
    await enterSandbox(withSockets(needs, all.map(({ options }) => options.socketPath)), sandbox, log);
  } catch (error) {
    ready?.close();
    stop();
    await Reactor.shared().release();
    throw error;
  }
  for (const [signal, action] of Object.entries(signals)) process.on(signal, action);
  ready?.send();
  for (const [i, { options, what }] of all.entries()) {
    const { takenOver } = servers[i];
    const taken = takenOver === undefined ? "" : `: ${describeTakeover(takenOver)}`;
    output.out(`${what} on ${options.socketPath ?? `descriptor ${options.fd}`}${taken}`);
  }
  if (metrics !== undefined) output.out(`metrics on ${metrics.url}`);
  await Promise.all(servers.map((server) => server.finished));
  metrics?.close();
  for (const [signal, action] of Object.entries(signals)) process.off(signal, action);
}
