import { Presets, SingleBar } from "cli-progress";
import process from "node:process";

/** How far a bench is: a bar on a terminal, a line for each step elsewhere. */
export class Progress {
  readonly #line: (text: string) => void;
  #bar: SingleBar | undefined;
  #done = 0;
  #total = 0;

  /** Lines go to a function. */
  constructor(line: (text: string) => void) {
    this.#line = line;
  }

  /** Sets the number of steps. */
  start(total: number): void {
    this.#total = total;
    if (!process.stderr.isTTY) return;
    this.#bar = new SingleBar({
      format: "{bar} {value}/{total} | {eta_formatted} | {what}",
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
    }, Presets.shades_classic);
    this.#bar.start(total, 0, { what: "" });
  }

  /** A step is done. */
  step(what: string): void {
    this.#done++;
    if (this.#bar !== undefined) this.#bar.update(this.#done, { what });
    else this.#line(`${this.#done}/${this.#total} ${what}`);
  }

  /** Nothing more comes. */
  end(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
