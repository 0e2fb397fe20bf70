/**
 * What has passed.
 *
 * @module
 */

/** Packets, bytes and connections of a guest. */
export class VsockCounters {
  /** Connections now. */
  connections = 0;
  /** Connections that there have been, whoever asked for them. */
  opened = 0;
  /** Requests for connections that were refused, on either side. */
  refused = 0;
  /** Payload bytes that the guest has sent. */
  sentBytes = 0;
  /** Payload bytes that the guest was given. */
  deliveredBytes = 0;
  /** Packets of the guest that were none, or had a sender other than the guest: dropped. */
  malformed = 0;
  /** Packets that told the guest of a connection that does not exist, and had to be left out because it takes none. */
  dropped = 0;
}
