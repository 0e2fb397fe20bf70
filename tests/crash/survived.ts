/** What was gone through. */
export interface Survived {
  /** Programs that were killed. */
  kills: number;
  /** Writes that were under way then, in all. */
  inFlight: number;
  /** Writes that were acknowledged. */
  writes: number;
}
