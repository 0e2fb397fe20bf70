/**
 * What a driver did wrong with a ring.
 *
 * @module
 */

/** Where the rule is, and who breaks it. */
export interface RingErrorPlace {
  /** Section of virtio 1.4 that has the rule, such as `2.7.5.2`. */
  readonly section?: string;
  /** The descriptor of the ring, or of its table, that is wrong or leads to what is wrong. */
  readonly descriptor?: number;
}

/** A ring that breaks the rules of virtio. It cannot be used until the driver sets it up anew. */
export class RingError extends Error {
  /** The error's class name. */
  override readonly name = "RingError";
  /** Where the rule is written, such as `virtio 1.4, 2.7.5.2`; absent for what is no rule of virtio. */
  readonly rule?: string;
  /** The descriptor of the ring, or of its table, that is wrong or leads to what is wrong. */
  readonly descriptor?: number;

  /**
   * An error with a text.
   *
   * @param place which rule, where it is one of virtio
   */
  constructor(message: string, { section, descriptor }: RingErrorPlace = {}) {
    super(message);
    if (section !== undefined) this.rule = `virtio 1.4, ${section}`;
    if (descriptor !== undefined) this.descriptor = descriptor;
  }
}
