/**
 * Frames written to a file, for Wireshark and tcpdump (IETF draft-ietf-opsawg-pcap).
 *
 * @module
 */

import { close, fileStatus } from "../../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { writePieces } from "../../../ffi/vector_io.ts";
import { logToStderr } from "../../backend/log.ts";
import type { Segments } from "../../memory/segments.ts";
import { MAX_FRAME } from "./layout.ts";

/** Microseconds, little-endian. */
const MAGIC = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const ROOM = 4 * (MAX_FRAME + RECORD_HEADER);
/** How long a record may wait for others before it is written, ms. */
const DELAY = 100;

/** Sees every frame that passes a card. */
export interface Capture {
  /** A frame begins that has `length` bytes. */
  begin(length: number): void;
  /** Some of its bytes. */
  piece(segments: Segments, position: number, length: number): void;
  /** It is complete. */
  end(): void;
}

/**
 * A pcap file. Checksums that were left to be computed stand in it as they are, and long frames uncut: Wireshark calls both an
 * offload. It is written with a delay of up to 100 ms, and blocks as file writes do.
 */
export class PcapFile implements Capture {
  readonly #fd: number;
  readonly #buffer = new Native(ROOM);
  readonly #iovec = new Iovec(1);
  #filled = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #broken = false;
  readonly #onError: (error: unknown) => void;

  /**
   * Creates the file, or starts it over. It may be a named pipe that somebody reads.
   *
   * @param onError told when writing fails; nothing more is captured then
   * @throws {OsError}
   */
  constructor(
    path: string,
    onError: (error: unknown) => void = (error) => logToStderr("warning", "pcap", error),
  ) {
    this.#onError = onError;
    this.#fd = openFile(path, OpenFlag.WRITE_ONLY | OpenFlag.CREATE | OpenFlag.TRUNCATE, 0o600);
    const { kind } = fileStatus(this.#fd);
    if (kind === "block device" || kind === "directory") {
      close(this.#fd);
      throw new TypeError(`a capture cannot be written to a ${kind}: ${path}`);
    }
    const { view } = this.#buffer;
    view.setUint32(0, MAGIC, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(8, 0, true);
    view.setUint32(12, 0, true);
    view.setUint32(16, MAX_FRAME, true);
    view.setUint32(20, LINKTYPE_ETHERNET, true);
    this.#filled = FILE_HEADER;
    this.flush();
  }

  /** {@link Capture.begin}. */
  begin(length: number): void {
    if (this.#filled + RECORD_HEADER + length > ROOM) this.flush();
    const now = performance.timeOrigin + performance.now();
    const seconds = Math.floor(now / 1000);
    const { view } = this.#buffer;
    const at = this.#filled;
    view.setUint32(at, seconds, true);
    view.setUint32(at + 4, Math.floor((now - seconds * 1000) * 1000), true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, length, true);
    this.#filled += RECORD_HEADER;
  }

  /** {@link Capture.piece}. */
  piece(segments: Segments, position: number, length: number): void {
    segments.copyTo(this.#buffer.bytes.subarray(this.#filled, this.#filled + length), position);
    this.#filled += length;
  }

  /** {@link Capture.end}. */
  end(): void {
    if (!this.#closed) this.#timer ??= setTimeout(() => this.flush(), DELAY);
  }

  /** Writes what was captured so far. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    let at = 0;
    try {
      while (at < this.#filled && !this.#broken && !this.#closed) {
        this.#iovec.clear();
        this.#iovec.push(Number(this.#buffer.address) + at, this.#filled - at);
        at += writePieces(this.#fd, this.#iovec);
      }
    } catch (error) {
      this.#broken = true;
      this.#onError(error);
    }
    this.#filled = 0;
  }

  /** Writes the rest and closes the file. */
  close(): void {
    if (this.#closed) return;
    this.flush();
    this.#closed = true;
    close(this.#fd);
  }
}
