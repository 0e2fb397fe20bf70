/**
 * How long what a case has opened may take to go.
 *
 * @module
 */

/** Milliseconds. Long, as a machine may be busy; shorter when a failure that is known is repeated. */
export const patience: { milliseconds: number } = { milliseconds: 20_000 };
