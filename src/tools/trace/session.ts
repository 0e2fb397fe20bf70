/**
 * A session: the connection of a front-end with a back-end, and the back-end channel that it carries over.
 *
 * @module
 */

import { DescriptorBag, fileStatus, isNonblocking, setNonblocking } from "../../../ffi/fd.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import { type PeerCredentials, peerCredentials, socketPair } from "../../../ffi/socket.ts";
import { errorText } from "../../backend/log.ts";
import { type Header, header, HeaderFlag } from "../../protocol/header.ts";
import { backendMessages, frontendMessages } from "../../protocol/messages.ts";
import { Agreement, Conversation } from "./conversation.ts";
import { inspectDescriptor } from "./descriptors.ts";
import type { Channel, Entry, MessageEntry, NoteEntry, RawEntry } from "./entry.ts";
import type { Frame } from "./framer.ts";
import { otherSide, type Outcome, type Side, Wire, type WireObserver } from "./wire.ts";

/** What a session needs of its tracer. */
export interface SessionOptions {
  /** Its number, from 1. */
  readonly number: number;
  /** Waiting. */
  readonly reactor: Reactor;
  /** How long something may take before a note says that it does, ms. */
  readonly patience: number;
  /** Milliseconds since the first session began. */
  clock(): number;
  /** Takes what is to be told. */
  emit(entry: Entry): void;
  /** Called once when all is closed. */
  onEnd(): void;
}

/** A wire and what is said on it. */
interface Line {
  readonly channel: Channel;
  readonly conversation: Conversation;
  readonly wire: Wire;
  /** What stood still when it was last looked at, and how often it has been seen. */
  stalls: ReadonlyMap<string, number>;
}

function credentials(fd: number): PeerCredentials | undefined {
  try {
    return peerCredentials(fd);
  } catch {
    return undefined;
  }
}

/** Passes on what crosses a session, and tells. Owns the sockets. */
export class TraceSession {
  readonly #options: SessionOptions;
  readonly #agreement = new Agreement();
  readonly #lines: Line[] = [];
  readonly #main: Line;
  #left: Side | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Takes over two connected sockets. */
  constructor(fds: Readonly<Record<Side, number>>, options: SessionOptions) {
    this.#options = options;
    options.emit({
      type: "session",
      event: "start",
      session: options.number,
      time: options.clock(),
      peers: { "front-end": credentials(fds["front-end"]), "back-end": credentials(fds["back-end"]) },
    });
    this.#main = this.#open("main", fds, new Conversation(frontendMessages, "front-end", this.#agreement));
  }

  /** Closes everything. */
  end(): void {
    for (const { wire } of [...this.#lines]) wire.close();
  }

  #open(channel: Channel, fds: Readonly<Record<Side, number>>, conversation: Conversation): Line {
    const observer: WireObserver = {
      arrived: (from, frame) => this.#arrived(line, from, frame),
      held: () => this.#watch(),
      left: (side, how) => this.#sideLeft(line, side, how),
      abandoned: (from) =>
        this.#note(line, "warning", `a message from the ${from} was under way and has not arrived whole`),
      failed: (error) => this.#note(line, "error", `the connection is broken: ${errorText(error)}`),
      closed: () => this.#closed(line),
    };
    const line: Line = {
      channel,
      conversation,
      wire: new Wire(fds, observer, this.#options.reactor),
      stalls: new Map(),
    };
    this.#lines.push(line);
    return line;
  }

  #note({ channel }: Line, level: NoteEntry["level"], text: string): void {
    const { number, clock, emit } = this.#options;
    emit({ type: "note", session: number, time: clock(), channel, level, text });
  }

  #arrived(line: Line, from: Side, frame: Frame): (outcome: Outcome) => void {
    const { number, emit } = this.#options;
    const time = this.#options.clock();
    const descriptors = frame.pieces.flatMap(({ fds }) => fds.list().map(inspectDescriptor));
    const common = { session: number, time, channel: line.channel, from, descriptors };
    const violations = pieceViolations(frame);
    let entry: Omit<MessageEntry, "outcome"> | Omit<RawEntry, "outcome">;
    if (frame.kind === "message" && frame.header !== undefined) {
      const payload = frame.bytes.slice(header.size);
      const reading = line.conversation.read(from, frame.header, payload, descriptors.length, time);
      if (line === this.#main && from === "front-end" && isChannel(frame.header)) this.#openChannel(frame);
      entry = {
        type: "message",
        ...common,
        header: frame.header,
        payload,
        ...reading,
        violations: [...violations, ...reading.violations],
      };
    } else {
      const why = frame.kind === "part"
        ? `the ${from} has left after ${progress(frame, line)}`
        : frame.header === undefined
        ? undefined
        : `no message has ${frame.header.size} bytes of payload: passed on as bytes from here`;
      entry = {
        type: "raw",
        ...common,
        bytes: frame.bytes.slice(),
        violations: why === undefined ? violations : [...violations, why],
      };
    }
    return (outcome) => {
      emit({ ...entry, outcome });
      this.#watch();
    };
  }

  /** Puts a socket of ours in the place of the channel that the front-end gives to the back-end. */
  #openChannel(frame: Frame): void {
    const bags = frame.pieces.map(({ fds }) => fds).filter(({ length }) => length > 0);
    if (bags.length !== 1 || bags[0].length !== 1) return;
    const [bag] = bags;
    if (fileStatus(bag.list()[0]).kind !== "socket") return;
    const [ours, theirs] = socketPair();
    const original = bag.take() as number;
    bag.append(new DescriptorBag([theirs]));
    // A back-end may rely on it that reading waits.
    setNonblocking(theirs, isNonblocking(original));
    this.#open(
      "back-end",
      { "front-end": original, "back-end": ours },
      new Conversation(backendMessages, "back-end", this.#agreement),
    );
  }

  #sideLeft(line: Line, side: Side, how: "closed" | "sends no more"): void {
    if (line === this.#main) this.#left ??= side;
    if (how === "sends no more") this.#note(line, "info", `the ${side} sends no more`);
    else if (line !== this.#main && !this.#main.wire.isClosed) {
      this.#note(line, "info", `closed by the ${side}`);
    }
  }

  #closed(line: Line): void {
    const { unanswered } = line.conversation;
    if (unanswered.length > 0) this.#note(line, "warning", `never answered: ${unanswered.join(", ")}`);
    this.#lines.splice(this.#lines.indexOf(line), 1);
    const { number, clock, emit, onEnd } = this.#options;
    if (line === this.#main) {
      emit({ type: "session", event: "end", session: number, time: clock(), left: this.#left });
    }
    if (this.#lines.length > 0) return;
    clearTimeout(this.#timer);
    onEnd();
  }

  /** Looks again after a while, as long as something is under way: a session that hangs is what people trace. */
  #watch(): void {
    if (this.#timer !== undefined) return;
    const { patience, clock } = this.#options;
    if (!this.#lines.some((line) => line.conversation.unanswered.length > 0 || stalls(line).length > 0)) {
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      for (const line of this.#lines) {
        for (const name of line.conversation.overdue(clock() - patience)) {
          this.#note(line, "warning", `${name}: no answer for ${patience} ms`);
        }
        const found = stalls(line).map(({ key, text }) => ({
          key,
          text,
          seen: (line.stalls.get(key) ?? 0) + 1,
        }));
        line.stalls = new Map(found.map(({ key, seen }) => [key, seen]));
        for (const { text, seen } of found) {
          if (seen === 2) this.#note(line, "warning", `${text}, for ${patience} ms or more`);
        }
      }
      this.#watch();
    }, patience);
  }
}

/** What of a wire stands still at this moment. */
function stalls(line: Line): { key: string; text: string }[] {
  return (["front-end", "back-end"] as const).flatMap((side) => {
    const { framer, blockedSince } = line.wire.flow(side);
    if (blockedSince > 0) {
      return [{
        key: `${side} ${blockedSince}`,
        text: `a message waits: the ${otherSide(side)} does not read`,
      }];
    }
    const { partial } = framer;
    if (partial === undefined) return [];
    const text = `from the ${side}: only ${progress(partial, line)} have come`;
    return [{ key: text, text }];
  });
}

function progress(
  part: Frame | { readonly have: number; readonly header: Header | undefined },
  { conversation }: Line,
): string {
  const have = "bytes" in part ? part.bytes.length : part.have;
  return part.header === undefined
    ? `${have} of ${header.size} bytes of a header`
    : `${have} of ${header.size + part.header.size} bytes of ${conversation.name(part.header.request)}`;
}

function isChannel({ request, flags }: Header): boolean {
  return request === frontendMessages.SET_BACKEND_REQ_FD.id && (flags & HeaderFlag.REPLY) === 0;
}

function pieceViolations({ pieces, lost }: Frame): string[] {
  const late = pieces.find(({ start, fds }) => start > 0 && fds.length > 0);
  return [
    ...(late === undefined ? [] : [`descriptors came with byte ${late.start}, not with the first`]),
    ...(lost ? ["descriptors were lost: more came than the tracer can take"] : []),
  ];
}
