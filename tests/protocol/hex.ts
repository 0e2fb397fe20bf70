/**
 * Bytes as they are written by hand: pairs of hex digits, `00*8` for eight of the same, and spaces, line ends and
 * `|` wherever they help the eye.
 */
export function hex(text: string): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (const word of text.split(/[\s|]+/).filter((each) => each !== "")) {
    const match = /^([0-9a-f]{2})(?:\*(\d+))?$/.exec(word);
    if (match === null) throw new SyntaxError(`not a byte: ${word}`);
    for (let i = Number(match[2] ?? 1); i > 0; i--) bytes.push(parseInt(match[1], 16));
  }
  return Uint8Array.from(bytes);
}
