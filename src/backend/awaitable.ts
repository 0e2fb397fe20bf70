/**
 * What is done at once where that is possible, and later otherwise.
 *
 * @module
 */

/** A result, or a promise of it. */
export type Awaitable<T> = T | Promise<T>;

/** Goes on with a result as soon as it is there: at once when it is. */
export function after<T, R>(result: Awaitable<T>, next: (value: T) => Awaitable<R>): Awaitable<R> {
  return result instanceof Promise ? result.then(next) : next(result);
}

/** Waits for all that is not done at once. A failure is that of the first, but the others are waited for as well. */
export function all(results: readonly Awaitable<unknown>[]): Awaitable<void> {
  const pending = results.filter((result) => result instanceof Promise);
  if (pending.length === 0) return;
  return Promise.allSettled(pending).then((settled) => {
    for (const each of settled) if (each.status === "rejected") throw each.reason;
  });
}
