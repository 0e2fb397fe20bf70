import { readFileSync } from "node:fs";

/** Frames of a pcap file, in order. Its last record may still be on the way. */
export function readPcap(path: string): Uint8Array[] {
  const file = readFileSync(path);
  const frames: Uint8Array[] = [];
  for (let at = 24; at + 16 <= file.length;) {
    const length = file.readUInt32LE(at + 8);
    if (at + 16 + length > file.length) break;
    frames.push(file.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}
