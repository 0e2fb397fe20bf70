import { HeaderFlag } from "../../src/protocol/header.ts";
import {
  backendMessages,
  frontendMessages,
  type MessageRow,
  type MessageTable,
} from "../../src/protocol/messages.ts";
import { has, protocolFeatures } from "../../src/protocol/features.ts";
import { Agreement, Conversation } from "../../src/tools/trace/conversation.ts";
import type { Connection, Message, Tap } from "../../src/transport/connection.ts";
import { programAt } from "./process_of.ts";
import type { PeerProgram } from "./programs.ts";
import type { SessionRecord, Side } from "./record.ts";
import { answersBoth } from "./rules.ts";

type Direction = Parameters<Tap>[0];

/** A request that has not come to its end. */
interface Request {
  readonly id: number;
  readonly name: string;
  readonly row: MessageRow;
  readonly value: unknown;
  readonly descriptors: number;
  /** Whether an answer has to come. */
  readonly due: boolean;
}

/** Which table a message is of; `undefined` when neither has it. */
function tableOf({ name, header }: Message): MessageTable | undefined {
  return [frontendMessages, backendMessages].find((table: MessageTable) =>
    table[name]?.id === header.request
  );
}

/** One connection of a session, as the side that is ours sees it. */
class Line {
  readonly #table: MessageTable;
  /** Who asks on this connection. */
  readonly #asking: Side;
  readonly #witness: Witness;
  readonly #conversation: Conversation;
  #waiting: Request[] = [];

  constructor(table: MessageTable, witness: Witness) {
    this.#table = table;
    this.#asking = table === frontendMessages ? "front-end" : "back-end";
    this.#witness = witness;
    this.#conversation = new Conversation(table, this.#asking, witness.agreement);
  }

  see(direction: Direction, { header, payload, fds }: Message): void {
    const { side } = this.#witness;
    const from = (direction === "out") === (side === "front-end") ? "front-end" : "back-end";
    const reading = this.#conversation.read(from, header, payload, fds.length, 0);
    if (reading.name === undefined) return;
    const row = this.#table[reading.name];
    if (!reading.reply) {
      const asked = (header.flags & HeaderFlag.NEED_REPLY) !== 0 && this.#witness.has("REPLY_ACK");
      this.#waiting.push({
        id: header.request,
        name: reading.name,
        row,
        value: reading.content.value,
        descriptors: fds.length,
        due: row.reply !== "ack" || asked,
      });
      return;
    }
    const at = this.#waiting.findIndex(({ id }) => id === header.request);
    if (at < 0) return;
    // They are answered in order, so what came before and needs no answer is done.
    for (const earlier of this.#waiting.slice(0, at)) {
      if (!earlier.due) this.#witness.prove(this.#asking, earlier);
    }
    const [request] = this.#waiting.splice(0, at + 1).slice(-1);
    if (reading.failed && !answersBoth.has(reading.name)) return;
    this.#witness.prove(this.#asking, request, true, fds.length);
    this.#witness.learn(reading.name, reading.content.value);
  }

  /** Our side asks for the next message: where it is we who answer, what needs no answer is done. */
  idle(): void {
    if (this.#waiting.length === 0 || this.#asking === this.#witness.side) return;
    const done = this.#waiting.filter(({ due }) => !due);
    this.#waiting = this.#waiting.filter(({ due }) => due);
    for (const request of done) this.#witness.prove(this.#asking, request);
  }
}

/** What is seen of one session. */
export class Witness {
  /** Which side is ours. */
  readonly side: Side;
  /** Who is the other. */
  readonly peer: PeerProgram | undefined;
  /** What both sides have agreed on. */
  readonly agreement = new Agreement();
  /** Whether a table of descriptors was used. */
  indirect = false;
  /** Whether the dirty log was told of something. */
  logged = false;
  /** Whether there is a back-end channel of which nothing was seen yet. */
  channelOpen = false;
  #features = 0n;
  #protocol = 0n;
  #offered = 0n;
  #offeredProtocol = 0n;
  #completed = 0n;
  #packed = false;
  readonly #proven = { "front-end": new Set<string>(), "back-end": new Set<string>() };
  readonly #acknowledged = new Set<string>();
  readonly #withDescriptors = new Set<string>();

  readonly #onAgreed: () => void;

  /**
   * @param fd the session's connection
   * @param onAgreed called when features were agreed on
   */
  constructor(side: Side, fd: number, onAgreed: () => void) {
    this.side = side;
    this.peer = programAt(fd);
    this.#onAgreed = onAgreed;
  }

  /** Whether a protocol feature was acknowledged. */
  has(feature: keyof typeof protocolFeatures): boolean {
    return has(this.#protocol, protocolFeatures[feature]);
  }

  /** A request has come to a good end. */
  prove(asking: Side, { name, row, value, descriptors }: Request, answered = false, back = 0): void {
    // Some say yes to everything, also to what was not agreed on.
    if (row.requires !== undefined && !this.has(row.requires)) return;
    this.#proven[asking].add(name);
    if (answered && row.reply === "ack") this.#acknowledged.add(name);
    if (asking === "back-end" && descriptors + back > 0) this.#withDescriptors.add(name);
    if (asking !== "front-end" || typeof value !== "bigint") return;
    if (name === "SET_PROTOCOL_FEATURES") this.#protocol |= value;
    if (name !== "SET_FEATURES") return;
    this.#features = value;
    this.#onAgreed();
  }

  /** An answer tells what is offered. */
  learn(name: string, value: unknown): void {
    if (typeof value !== "bigint") return;
    if (name === "GET_FEATURES") this.#offered |= value;
    if (name === "GET_PROTOCOL_FEATURES") this.#offeredProtocol |= value;
  }

  /** A request on a ring was completed. */
  complete(packed: boolean): void {
    this.#completed |= this.#features;
    if (packed) this.#packed = true;
  }

  /** What was seen, if it was seen of somebody. */
  get record(): Omit<SessionRecord, "test"> | undefined {
    if (this.peer === undefined) return undefined;
    const hex = (mask: bigint): string => `0x${mask.toString(16)}`;
    return {
      side: this.side,
      peer: this.peer,
      main: [...this.#proven["front-end"]].sort(),
      channel: [...this.#proven["back-end"]].sort(),
      acknowledged: [...this.#acknowledged].sort(),
      withDescriptors: [...this.#withDescriptors].sort(),
      offered: hex(this.#offered),
      offeredProtocol: hex(this.#offeredProtocol),
      protocol: hex(this.#protocol),
      completed: hex(this.#completed),
      packed: this.#packed,
      indirect: this.indirect,
      logged: this.logged,
    };
  }
}

/** Everybody who is looked at in this process. */
export class Witnesses {
  readonly #write: (record: Omit<SessionRecord, "test">) => void;
  readonly #lines = new WeakMap<Connection, Line | "nothing to see">();
  readonly #sessions = new Map<Connection, Witness>();
  /** Sessions of ours as a back-end by the number of their channel's descriptor. */
  readonly #channels = new Map<number, Witness>();
  readonly #backends = new Set<Witness>();
  #only: Witness | undefined;
  /** Called when the rings of this process may show something new: sessions or their features have changed. */
  onChange: () => void = () => {};

  /** @param write called with what was seen of a session when that is over */
  constructor(write: (record: Omit<SessionRecord, "test">) => void) {
    this.#write = write;
  }

  /** The one session that this process has as a back-end; `undefined` when it has none or several. */
  get only(): Witness | undefined {
    return this.#only;
  }

  /** What is seen of a session, by its connection. */
  of(connection: Connection): Witness | undefined {
    return this.#sessions.get(connection);
  }

  /** Whoever reads the connection wants the next message. */
  idle(connection: Connection): void {
    const line = this.#lines.get(connection);
    if (line instanceof Line) line.idle();
  }

  /** A message crosses a connection. */
  see(connection: Connection, direction: Direction, message: Message): void {
    let line = this.#lines.get(connection);
    if (line === undefined) {
      line = this.#meet(connection, direction, message);
      if (line === undefined) return;
      this.#lines.set(connection, line);
    }
    if (!(line instanceof Line)) return;
    line.see(direction, message);
    if (message.name !== "SET_BACKEND_REQ_FD" || (message.header.flags & HeaderFlag.REPLY) !== 0) return;
    const witness = this.#sessions.get(connection);
    if (witness === undefined) return;
    witness.channelOpen = true;
    // The other end of what we have sent out is unknown; what was sent to us has the number that it will be used by.
    if (direction === "in") { for (const fd of message.fds.list()) this.#channels.set(fd, witness); }
  }

  /** The first message of a connection. */
  #meet(connection: Connection, direction: Direction, message: Message): Line | "nothing to see" | undefined {
    const table = tableOf(message);
    if (table === undefined) return undefined;
    // An answer to something that was said behind our back: a peer that sends bytes.
    if ((message.header.flags & HeaderFlag.REPLY) !== 0) return "nothing to see";
    if (table === backendMessages) {
      const witness = direction === "out" ? this.#channels.get(connection.fd) : this.#asker();
      if (witness === undefined) return "nothing to see";
      witness.channelOpen = false;
      return new Line(table, witness);
    }
    const witness = new Witness(
      direction === "in" ? "back-end" : "front-end",
      connection.fd,
      () => this.onChange(),
    );
    this.#sessions.set(connection, witness);
    if (witness.side === "back-end") this.#backends.add(witness);
    this.#count();
    return new Line(table, witness);
  }

  /** Whose channel a request may have come on; nobody's when it may be of several who are not alike. */
  #asker(): Witness | undefined {
    const open = [...this.#sessions.values()].filter(({ side, channelOpen }) =>
      side === "front-end" && channelOpen
    );
    return open.every(({ peer }) => peer?.name === open[0].peer?.name) ? open[0] : undefined;
  }

  #count(): void {
    this.#only = this.#backends.size === 1 ? [...this.#backends][0] : undefined;
    this.onChange();
  }

  /** A connection is closed; if it is a session's, that is over. */
  close(connection: Connection): void {
    const witness = this.#sessions.get(connection);
    if (witness === undefined) return;
    this.#sessions.delete(connection);
    this.#backends.delete(witness);
    this.#count();
    for (const [fd, each] of this.#channels) if (each === witness) this.#channels.delete(fd);
    const { record } = witness;
    if (record !== undefined) this.#write(record);
  }
}
