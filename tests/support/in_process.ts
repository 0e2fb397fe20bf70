import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Device, errorText, serve, type ServeOptions, type Server } from "../../mod.ts";
import { codecOf, type FrontendMessage, frontendMessages, HeaderFlag } from "../../src/protocol/mod.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";

/** How long to wait for something, in milliseconds. */
const PATIENCE = 20_000;

/** A message that a front-end has sent. */
export interface Asked {
  /** Its name. */
  readonly name: FrontendMessage;
  /** Its payload by the table, or the bytes where they are no such payload. */
  readonly value: unknown;
  /** Whether an acknowledgement was asked for. */
  readonly needReply: boolean;
  /** Bytes of the payload. */
  readonly length: number;
  /** How many descriptors came along. */
  readonly fds: number;
  /** The value of the answer, once there is one. */
  answer?: unknown;
}

/** A device that the test itself serves, so that it can look at what a front-end says. */
export class InProcess {
  /** Where front-ends connect. */
  readonly socket: string;
  /** What they have sent, in order. */
  readonly asked: Asked[] = [];
  /** Warnings and errors that the server has written. */
  readonly problems: string[] = [];
  #server: Server | undefined;

  /** Serves a device until the test is over. */
  static async serve(
    scope: Scope,
    device: Device,
    options: Partial<ServeOptions> = {},
  ): Promise<InProcess> {
    const served = new InProcess(join(tempDir(scope), "device.sock"));
    const server = served.#server = await serve(device, {
      socketPath: served.socket,
      log: (level, text, error) => {
        if (level !== "warning" && level !== "error") return;
        served.problems.push(`${level}: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`);
      },
      onSession: ({ connection }) => {
        connection.tap = (direction, { name, header, payload, fds }) => {
          const row = frontendMessages[name as FrontendMessage];
          if (direction === "out") {
            const open = served.asked.findLast((each) => each.name === name);
            const kind = row.reply === "ack" || row.reply === "always ack" ? "u64" : row.reply;
            if (open !== undefined) open.answer = decoded(kind, payload);
            return;
          }
          served.asked.push({
            name: name as FrontendMessage,
            value: decoded(row?.payload, payload),
            needReply: (header.flags & HeaderFlag.NEED_REPLY) !== 0,
            length: payload.length,
            fds: fds.length,
          });
        };
      },
      ...options,
    });
    onEnd(scope, async () => {
      server.close();
      await server.finished;
    });
    return served;
  }

  private constructor(socket: string) {
    this.socket = socket;
  }

  /** The messages of one name, from a place in {@link asked} on. */
  all(name: FrontendMessage, from = 0): Asked[] {
    return this.asked.slice(from).filter((each) => each.name === name);
  }

  /** Waits until something holds. */
  async until(what: string, holds: () => boolean, patience: number = PATIENCE): Promise<void> {
    for (const deadline = Date.now() + patience; !holds(); await sleep(5)) {
      if (Date.now() < deadline) continue;
      assert.fail(
        `in vain: ${what}\nproblems: ${this.problems}\nasked: ${this.asked.map(({ name }) => name)}`,
      );
    }
  }

  /** Waits until the front-ends have left; nothing may have gone wrong. */
  async checkUnharmed(): Promise<void> {
    await this.until("the front-end leaves", () => this.#server?.sessions === 0);
    assert.deepEqual(this.problems, []);
  }
}

function decoded(kind: Parameters<typeof codecOf>[0], payload: Uint8Array): unknown {
  try {
    return codecOf(kind).decode(payload);
  } catch {
    return payload;
  }
}
