import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { onEnd, type Scope } from "./cleanup.ts";
import type { Child } from "./process.ts";
import { connectUnix } from "./stream.ts";

/** An object of JSON. */
export type Json = { [key: string]: unknown };

/** Something QEMU tells unasked. */
export interface QmpEvent {
  /** Its name, such as `DEVICE_DELETED`. */
  event: string;
  /** What it says more. */
  data: Json;
}

/** One message of the monitor: a greeting, an answer or an event. */
interface Message {
  QMP?: Json;
  return?: Json;
  error?: { class: string; desc: string };
  event?: string;
  data?: Json;
}

/** How long QEMU may take to answer, in milliseconds: some commands wait for a back-end. */
const PATIENCE = 20_000;

/** A connection to the monitor (QMP) of QEMU or of qemu-storage-daemon. */
export class Qmp {
  #socket: Socket;
  #program: Child;
  /** Who waits for answers, in the order of their commands. */
  #asked: ((message: Message) => void)[] = [];
  #events: QmpEvent[] = [];
  #expected: { matches: (event: QmpEvent) => boolean; resolve: (event: QmpEvent) => void }[] = [];

  /** Connects to the monitor socket of `program`. The connection is closed at the end of the test. */
  static async connect(scope: Scope, path: string, program: Child): Promise<Qmp> {
    const gone = (): string | undefined =>
      program.code === undefined ? undefined : `${program.name} has ended: ${program.output}`;
    const qmp = new Qmp(await connectUnix(path, PATIENCE, gone), program);
    onEnd(scope, () => qmp.close());
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  private constructor(socket: Socket, program: Child) {
    this.#socket = socket;
    this.#program = program;
    // QEMU may end with something of ours unread. The lines have the error once more.
    createInterface({ input: socket }).on("line", (line) => this.#receive(JSON.parse(line))).on(
      "error",
      () => {},
    );
    socket.on("error", () => {});
  }

  /** Runs a command and returns what it returns. Fails with QEMU's own words. */
  async execute(command: string, args: Json = {}): Promise<Json> {
    const answer = await this.#wait<Message>(`answer to ${command}`, PATIENCE, (resolve) => {
      this.#asked.push(resolve);
      this.#socket.write(JSON.stringify({ execute: command, arguments: args }) + "\n");
    });
    if (answer.error) {
      throw new Error(`${this.#program.name}: ${command}: ${answer.error.desc}`);
    }
    return answer.return ?? {};
  }

  /**
   * Waits for an event of this name for which `matches` is true, and takes it. Events that came
   * before the call count, until they are taken.
   */
  async waitEvent(
    name: string,
    timeout: number = PATIENCE,
    matches: (data: Json) => boolean = () => true,
  ): Promise<QmpEvent> {
    const wanted = (event: QmpEvent): boolean => event.event === name && matches(event.data);
    const index = this.#events.findIndex(wanted);
    if (index >= 0) return this.#events.splice(index, 1)[0];
    return await this.#wait<QmpEvent>(`event ${name}`, timeout, (resolve) => {
      this.#expected.push({ matches: wanted, resolve });
    });
  }

  /** Closes the connection. */
  close(): void {
    this.#socket.destroy();
  }

  #receive(message: Message): void {
    if (message.QMP) return;
    if (message.event === undefined) {
      this.#asked.shift()?.(message);
      return;
    }
    const event = { event: message.event, data: message.data ?? {} };
    const index = this.#expected.findIndex(({ matches }) => matches(event));
    if (index >= 0) this.#expected.splice(index, 1)[0].resolve(event);
    else this.#events.push(event);
  }

  /** Fails when the time is over or the program ends first. */
  async #wait<T>(
    what: string,
    timeout: number,
    begin: (resolve: (value: T) => void) => void,
  ): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let onClose = (): void => {};
    const fail = (why: string): Error =>
      new Error(`${this.#program.name}: no ${what}: ${why}\noutput: ${this.#program.output}`);
    try {
      return await new Promise<T>((resolve, reject) => {
        timer = setTimeout(() => reject(fail(`${timeout} ms went by`)), timeout);
        onClose = () => reject(fail("the monitor was closed"));
        this.#socket.once("close", onClose);
        begin(resolve);
      });
    } finally {
      clearTimeout(timer);
      this.#socket.off("close", onClose);
    }
  }
}
