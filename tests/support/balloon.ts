import { defineDevice, type Device, type DeviceBehaviour, type FrontEndLink } from "../../mod.ts";

/**
 * A memory balloon that keeps the pages it was given, to stand for any device with a configuration space that both sides
 * write, and several rings: virtio 1.4, section 5.5.
 */
export class Balloon {
  /** To be served. */
  readonly device: Device;
  /** Pages in the balloon, by number. */
  readonly pages: Set<number> = new Set();
  /** What the device can ask of the front-end that has connected last. */
  link: FrontEndLink | undefined;
  /** How often it was reset. */
  resets = 0;
  /** Pages that the driver says it has given. */
  actual = 0;
  #wanted = 0;

  /** A balloon that wants nothing, with more abilities. */
  constructor(more: Partial<DeviceBehaviour> = {}) {
    const numbers = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer);
    this.device = defineDevice({
      type: 5,
      name: "balloon",
      connect: (link) => {
        this.link = link;
        return {
          queues: [
            (chain) => numbers(chain.read()).forEach((page) => this.pages.add(page)),
            (chain) => numbers(chain.read()).forEach((page) => this.pages.delete(page)),
          ],
          config: {
            read: () => new Uint8Array(Uint32Array.of(this.#wanted, this.actual).buffer),
            // QEMU writes the whole space.
            write: (_, data) => void ([, this.actual] = numbers(data)),
          },
          reset: () => this.resets++,
          ...more,
        };
      },
    });
  }

  /** Asks the driver to have a number of pages in the balloon. */
  want(pages: number): void {
    this.#wanted = pages;
    this.device.configChanged();
  }
}
