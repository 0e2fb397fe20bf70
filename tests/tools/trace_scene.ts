import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { close } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { OsError } from "../../ffi/os_error.ts";
import { accept, connect, listen, receive, shutdown } from "../../ffi/socket.ts";
import { backendMessages, frontendMessages } from "../../src/protocol/messages.ts";
import type { Entry, MessageEntry, NoteEntry, RawEntry } from "../../src/tools/trace/entry.ts";
import { Tracer, type TracerOptions } from "../../src/tools/trace/tracer.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { eventually, PATIENCE } from "../session/scene.ts";
import { concat, sendMessage, u32 } from "../session/wire.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";

/** Flags of a request, of one that asks for an acknowledgement, and of a reply. */
export const PLAIN = 0x1;
export const NEED_REPLY = 0x9;
export const REPLY = 0x5;

/** Names of messages, those of the channel with a dot in front. */
export type Name = keyof typeof frontendMessages | `.${keyof typeof backendMessages}` | number;

function idOf(name: Name): number {
  if (typeof name === "number") return name;
  return name.startsWith(".")
    ? backendMessages[name.slice(1) as keyof typeof backendMessages].id
    : frontendMessages[name as keyof typeof frontendMessages].id;
}

/** A message as bytes. `size` is what the header says, by default the truth. */
export function bytesOf(
  name: Name,
  payload: Uint8Array = new Uint8Array(0),
  flags: number = PLAIN,
  size: number = payload.length,
): Uint8Array<ArrayBuffer> {
  return concat(u32(idOf(name), flags, size), payload);
}

/** One end of a connection, held by the test. */
export class End {
  readonly fd: number;
  readonly #room = new Native(65536);
  #open = true;

  constructor(scope: Scope, fd: number) {
    this.fd = fd;
    onEnd(scope, () => this.close());
  }

  /** Sends bytes in one piece. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    assert.equal(sendMessage(this.fd, bytes, fds), bytes.length, "all bytes go out at once");
  }

  /** Sends a message. */
  say(name: Name, payload?: Uint8Array, flags?: number, fds: readonly number[] = []): void {
    this.send(bytesOf(name, payload, flags), fds);
  }

  /** What has come by now, at most so much; `"end"` when there will be no more. */
  look(most = 65536): { bytes: Uint8Array; fds: number[] } | "nothing" | "end" {
    try {
      const { length, fds } = receive(this.fd, this.#room.address, most);
      if (length < 0) return "nothing";
      if (length === 0) return "end";
      return { bytes: this.#room.bytes.slice(0, length), fds: fds.takeAll() };
    } catch (error) {
      if (error instanceof OsError && error.code === "ECONNRESET") return "end";
      throw error;
    }
  }

  /** Waits for exactly these bytes; returns the descriptors that came with them, to be closed by the caller. */
  async expect(bytes: Uint8Array, patience = PATIENCE): Promise<number[]> {
    const got: Uint8Array[] = [];
    const fds: number[] = [];
    let length = 0;
    for (const deadline = performance.now() + patience; length < bytes.length;) {
      const found = this.look(Math.min(65536, bytes.length - length));
      assert.notEqual(found, "end", `the end after ${length} of ${bytes.length} bytes`);
      if (typeof found === "string") {
        assert.ok(performance.now() < deadline, `only ${length} of ${bytes.length} bytes have come`);
        await sleep(1);
        continue;
      }
      got.push(found.bytes);
      fds.push(...found.fds);
      length += found.bytes.length;
    }
    assert.deepEqual(concat(...got), Uint8Array.from(bytes));
    return fds;
  }

  /** Waits for a message without descriptors. */
  async hear(name: Name, payload?: Uint8Array, flags?: number): Promise<void> {
    assert.deepEqual(await this.expect(bytesOf(name, payload, flags)), []);
  }

  /** Waits for a message with descriptors and returns them; they are closed at the end of the test. */
  async take(scope: Scope, name: Name, payload?: Uint8Array, flags?: number): Promise<number[]> {
    const fds = await this.expect(bytesOf(name, payload, flags));
    onEnd(scope, () => fds.forEach(close));
    return fds;
  }

  /** Waits until the other side has closed, having said nothing more. */
  async ended(): Promise<void> {
    await eventually("the end of the stream", () => {
      const found = this.look();
      assert.ok(typeof found === "string", "nothing more comes");
      return found === "end";
    });
  }

  /** Leaves. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    shutdown(this.fd);
    close(this.fd);
  }
}

/** A tracer between ends that the test holds. When the test is over, no descriptor may be left. */
export class TraceScene {
  readonly tracer: Tracer;
  readonly entries: Entry[] = [];
  /** Where the tracer listens. */
  readonly path: string;
  readonly #scope: Scope;
  readonly #backend: number;

  constructor(scope: Scope, options: Partial<TracerOptions> = {}) {
    this.#scope = scope;
    onEnd(scope, noteDescriptors());
    const folder = tempDir(scope);
    this.path = join(folder, "seen");
    const connect = join(folder, "back");
    this.#backend = listen(connect);
    onEnd(scope, () => close(this.#backend));
    this.tracer = new Tracer({
      listen: this.path,
      connect,
      onEntry: (entry) => this.entries.push(entry),
      ...options,
    });
    onEnd(scope, async () => {
      this.tracer.close();
      await this.tracer.finished;
    });
  }

  /** Connects a front-end, and accepts the connection that the tracer makes for it. */
  async session(): Promise<{ front: End; back: End }> {
    const front = new End(this.#scope, connect(this.path));
    let fd: number | null = null;
    await eventually("a connection with the back-end", () => (fd = accept(this.#backend)) !== null);
    return { front, back: new End(this.#scope, fd as unknown as number) };
  }

  /** A session in which features and protocol features are negotiated. */
  async negotiated(protocol: bigint, features = 1n << 30n): Promise<{ front: End; back: End }> {
    const { front, back } = await this.session();
    const u64 = (value: bigint) => new Uint8Array(BigUint64Array.of(value).buffer);
    for (const [name, value] of [["FEATURES", features], ["PROTOCOL_FEATURES", protocol]] as const) {
      front.say(`GET_${name}`);
      await back.hear(`GET_${name}`);
      back.say(`GET_${name}`, u64(value), REPLY);
      await front.hear(`GET_${name}`, u64(value), REPLY);
    }
    front.say("SET_PROTOCOL_FEATURES", u64(protocol));
    await back.hear("SET_PROTOCOL_FEATURES", u64(protocol));
    assert.deepEqual(this.violations, []);
    return { front, back };
  }

  /** The messages so far. */
  get messages(): MessageEntry[] {
    return this.entries.filter((entry) => entry.type === "message");
  }

  /** What was no message. */
  get raw(): RawEntry[] {
    return this.entries.filter((entry) => entry.type === "raw");
  }

  /** Notes, as level and text. */
  get notes(): string[] {
    return this.entries.filter((entry): entry is NoteEntry => entry.type === "note")
      .map(({ level, text }) => `${level}: ${text}`);
  }

  /** All that was found wrong. */
  get violations(): string[] {
    return this.entries.flatMap((entry) =>
      entry.type === "message" || entry.type === "raw" ? entry.violations : []
    );
  }

  /** Waits for a message. */
  async told(count: number): Promise<MessageEntry> {
    await eventually(
      `${count} messages; ${this.messages.length} so far`,
      () => this.messages.length >= count,
    );
    return this.messages[count - 1];
  }
}
