/**
 * What has passed.
 *
 * @module
 */

/** Frames and bytes of a guest, in both directions. */
export class NetCounters {
  /** Frames that the guest has sent. */
  sentFrames = 0;
  /** Their bytes. */
  sentBytes = 0;
  /** Frames of the guest that were none: no header, too short, too long. */
  malformed = 0;
  /** Frames that the guest was given. */
  deliveredFrames = 0;
  /** Their bytes. */
  deliveredBytes = 0;
  /** Frames for the guest that were dropped: it had no buffers for them, or could not take them unfinished. */
  dropped = 0;
}
