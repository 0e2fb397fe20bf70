import process from "node:process";
import { destination } from "./destination.ts";
import { appendLine } from "./process_of.ts";
import { CODEC, type CodecRecord, type Side } from "./record.ts";

/** A test has held the codec of a message against bytes that were written by hand. */
export function codecProven(from: Side, message: string, part: CodecRecord["part"]): void {
  const to = destination(import.meta.url, process);
  if (to === undefined) return;
  const record: CodecRecord = { from, message, part };
  appendLine(`${to.folder}/${CODEC}`, JSON.stringify(record));
}
