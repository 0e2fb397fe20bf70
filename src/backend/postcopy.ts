/**
 * The destination of a postcopy migration: memory whose pages come when they are touched (vhost-user, "Migration",
 * POSTCOPY_ADVISE).
 *
 * @module
 */

import { close } from "../../ffi/fd.ts";
import { userfaultfd } from "../../ffi/userfaultfd.ts";
import { FieldError } from "../protocol/error.ts";
import type { Region } from "../memory/region.ts";

/** Where a session is in it. */
export class Postcopy {
  #fd = -1;
  #listening = false;
  /** Mapped without access, until the front-end says that it has understood our addresses. */
  #pending: Region[] = [];

  /** Whether memory that is shared now has pages that are missing. */
  get listening(): boolean {
    return this.#listening;
  }

  /** Whether a migration arrives, or is about to. */
  get expected(): boolean {
    return this.#fd >= 0;
  }

  /**
   * POSTCOPY_ADVISE.
   *
   * @returns the userfaultfd; it stays ours, the front-end gets a copy
   * @throws {OsError} when the kernel or our rights do not allow it
   */
  advise(): number {
    this.end();
    return this.#fd = userfaultfd();
  }

  /**
   * POSTCOPY_LISTEN.
   *
   * @param regions that are mapped already
   * @throws {FieldError} before POSTCOPY_ADVISE, or when memory is shared already: its pages have been touched
   */
  listen(regions: number): void {
    if (this.#fd < 0) throw new FieldError("state", "after POSTCOPY_ADVISE", "none before");
    if (regions > 0) throw new FieldError("memory regions", "none before POSTCOPY_LISTEN", regions);
    this.#listening = true;
  }

  /** Takes note of regions that were mapped without access. */
  await(regions: readonly Region[]): void {
    this.#pending.push(...regions);
  }

  /** The front-end knows our addresses: from here on it resolves faults. */
  acknowledged(): void {
    for (const region of this.#pending.splice(0)) region.serveFaults(this.#fd);
  }

  /** POSTCOPY_END, or the end of the session. */
  end(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    this.#listening = false;
    this.#pending = [];
  }
}
