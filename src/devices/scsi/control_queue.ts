/**
 * The control queue: task management.
 *
 * @module
 */

import type { Chain } from "../../virtqueue/chain.ts";
import {
  NOTIFICATION_ANSWER_SIZE,
  NOTIFICATION_SIZE,
  ScsiControl,
  ScsiResponse,
  ScsiTmf,
  TMF_SIZE,
} from "./layout.ts";

/** What task management works on. */
export interface Tasks {
  /** The unit's number, -1 where there is no such target, -2 where there is no such unit. */
  locate(address: Uint8Array): number;
  /** Whether there is a command under way: one by its name, or any of the unit. */
  has(lun: number, name?: readonly [low: number, high: number]): boolean;
  /** Ends commands with a response: one, those of a unit, or all. Resolves when they are over. */
  abort(
    response: number,
    lun: number | undefined,
    name?: readonly [low: number, high: number],
  ): Promise<void>;
  /** Puts a unit, or all of them, into the state after a reset. */
  resetUnits(lun: number | undefined): void;
}

/** Answers a control request. */
export function control(chain: Chain, tasks: Tasks): void | Promise<void> {
  const { readable, writable } = chain;
  if (readable.byteLength < 4) throw new RangeError(`a control request of ${readable.byteLength} bytes`);
  const type = readable.getUint32(0);
  switch (type) {
    case ScsiControl.TMF:
      if (readable.byteLength < TMF_SIZE || writable.byteLength < 1) {
        throw new RangeError(
          `task management needs ${TMF_SIZE} bytes and 1 for the answer, ` +
            `got ${readable.byteLength} and ${writable.byteLength}`,
        );
      }
      return manage(chain, tasks);
    case ScsiControl.AN_QUERY:
    case ScsiControl.AN_SUBSCRIBE: {
      if (readable.byteLength < NOTIFICATION_SIZE || writable.byteLength < NOTIFICATION_ANSWER_SIZE) {
        throw new RangeError(
          `a request about notifications needs ${NOTIFICATION_SIZE} bytes and ${NOTIFICATION_ANSWER_SIZE} for the ` +
            `answer, got ${readable.byteLength} and ${writable.byteLength}`,
        );
      }
      const address = new Uint8Array(8);
      readable.copyTo(address, 4);
      // A disk has none of those events to tell.
      writable.setUint32(0, 0);
      writable.setUint8(4, missing(tasks.locate(address)) ?? ScsiResponse.OK);
      chain.written = NOTIFICATION_ANSWER_SIZE;
      return;
    }
    default:
      throw new RangeError(`a control request of type ${type}; there are 0 to 2`);
  }
}

function missing(lun: number): number | undefined {
  return lun === -1 ? ScsiResponse.BAD_TARGET : lun === -2 ? ScsiResponse.INCORRECT_LUN : undefined;
}

function manage(chain: Chain, tasks: Tasks): void | Promise<void> {
  const { readable } = chain;
  const address = new Uint8Array(8);
  readable.copyTo(address, 8);
  const how = readable.getUint32(4);
  const name = [readable.getUint32(16), readable.getUint32(20)] as const;
  const answer = (response: number): void => {
    chain.writable.setUint8(0, response);
    chain.written = 1;
  };
  const lun = tasks.locate(address);
  const wrong = missing(lun);
  const { OK, FUNCTION_SUCCEEDED, FUNCTION_REJECTED, ABORTED, RESET } = ScsiResponse;
  if (wrong !== undefined && !(how === ScsiTmf.I_T_NEXUS_RESET && lun === -2)) return answer(wrong);
  switch (how) {
    case ScsiTmf.ABORT_TASK:
      return tasks.abort(ABORTED, lun, name).then(() => answer(OK));
    case ScsiTmf.ABORT_TASK_SET:
    case ScsiTmf.CLEAR_TASK_SET:
      return tasks.abort(ABORTED, lun).then(() => answer(OK));
    case ScsiTmf.LOGICAL_UNIT_RESET:
    case ScsiTmf.I_T_NEXUS_RESET: {
      const which = how === ScsiTmf.LOGICAL_UNIT_RESET ? lun : undefined;
      return tasks.abort(RESET, which).then(() => {
        tasks.resetUnits(which);
        answer(OK);
      });
    }
    case ScsiTmf.QUERY_TASK:
      return answer(tasks.has(lun, name) ? FUNCTION_SUCCEEDED : OK);
    case ScsiTmf.QUERY_TASK_SET:
      return answer(tasks.has(lun) ? FUNCTION_SUCCEEDED : OK);
    default:
      return answer(FUNCTION_REJECTED);
  }
}
