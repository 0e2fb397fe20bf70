/**
 * What is pressed and where things are.
 *
 * @module
 */

import { Abs, EventType } from "./layout.ts";

/** Bits of a code, of a type, and so where the slot begins in a number that names one value. */
const CODE_BITS = 10;
const SLOT_SHIFT = CODE_BITS + 5;

/** Takes an event. */
export type Emit = (type: number, code: number, value: number) => void;

/** The values that stay until they change: keys, switches, absolute axes, and those of each finger. */
export class InputState {
  readonly #values = new Map<number, number>();
  #slot = 0;

  /** Takes note of an event. */
  apply(type: number, code: number, value: number): void {
    if (type === EventType.ABS) {
      if (code === Abs.MT_SLOT) this.#slot = value;
      else this.#values.set(this.#place(type, code), value);
    } else if (type === EventType.KEY || type === EventType.SW) {
      // A repeated key is a pressed one.
      if (value === 0) this.#values.delete(this.#place(type, code));
      else this.#values.set(this.#place(type, code), 1);
    }
  }

  #place(type: number, code: number): number {
    const slot = type === EventType.ABS && code > Abs.MT_SLOT && code <= Abs.MT_TOOL_Y ? this.#slot : 0;
    return slot << SLOT_SHIFT | type << CODE_BITS | code;
  }

  /** Nothing is pressed, and nobody knows where anything is. */
  clear(): void {
    this.#values.clear();
    this.#slot = 0;
  }

  /** Gives the events after which `other` is as this is; `other` takes no note of them. */
  differences(other: InputState, emit: Emit): void {
    const places = new Set([...this.#values.keys(), ...other.#values.keys()]);
    let slot = other.#slot;
    for (const place of [...places].sort((a, b) => a - b)) {
      const value = this.#values.get(place) ?? 0;
      if (value === (other.#values.get(place) ?? defaultOf(place))) continue;
      const type = place >> CODE_BITS & 0x1f;
      const code = place & (1 << CODE_BITS) - 1;
      if (
        type === EventType.ABS && code > Abs.MT_SLOT && code <= Abs.MT_TOOL_Y && place >> SLOT_SHIFT !== slot
      ) {
        slot = place >> SLOT_SHIFT;
        emit(EventType.ABS, Abs.MT_SLOT, slot);
      }
      emit(type, code, value);
    }
    if (slot !== this.#slot) emit(EventType.ABS, Abs.MT_SLOT, this.#slot);
  }

  /** Codes of keys that are pressed. */
  pressed(): number[] {
    return [...this.#values.keys()].filter((place) => place >> CODE_BITS === EventType.KEY).map((place) =>
      place & (1 << CODE_BITS) - 1
    );
  }

  /** Slots with a finger. */
  touched(): number[] {
    const id = EventType.ABS << CODE_BITS | Abs.MT_TRACKING_ID;
    return [...this.#values].flatMap(([place, value]) =>
      (place & (1 << SLOT_SHIFT) - 1) === id && value >= 0 ? [place >> SLOT_SHIFT] : []
    );
  }
}

/** What a driver takes for granted: no finger. A position is not known, and told in any case. */
function defaultOf(place: number): number | undefined {
  const type = place >> CODE_BITS & 0x1f;
  if (type !== EventType.ABS) return 0;
  return (place & (1 << CODE_BITS) - 1) === Abs.MT_TRACKING_ID ? -1 : undefined;
}
