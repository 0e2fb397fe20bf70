/**
 * What a driver did wrong with a ring.
 *
 * @module
 */

/** A ring that breaks the rules of virtio. It cannot be used until the driver sets it up anew. */
export class RingError extends Error {
  /** The error's class name. */
  override readonly name = "RingError";
}
