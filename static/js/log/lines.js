// From bytes at offsets to lines at offsets, and from offsets to times.
import { Terminal } from "./ansi.js";

const NEWLINE = 0x0a;
const GIVE_UP = 2 ** 16;

/** Calls `online({offset, spans})` for each finished line; `current` is the one that is not. */
export class LineReader {
  /** `midway`: the first bytes are somewhere in a line, which is left out. */
  constructor(online, { midway = false } = {}) {
    this.decoder = new TextDecoder("utf-8");
    this.terminal = new Terminal((spans) => online({ offset: this.start, spans }));
    this.skipping = midway;
    this.skipped = 0;
    /** Where the line that is being read begins; null before the first byte. */
    this.start = null;
  }

  push(offset, bytes) {
    if (this.skipping) {
      const end = bytes.indexOf(NEWLINE);
      // One line longer than what was asked for: better its end than nothing.
      this.skipped += bytes.length;
      if (end === -1 && this.skipped < GIVE_UP) return;
      this.skipping = false;
      if (end !== -1) { offset += end + 1; bytes = bytes.subarray(end + 1); }
    }
    this.start ??= offset;
    let at = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, at);
      if (end === -1) break;
      this.terminal.write(this.decoder.decode(bytes.subarray(at, end + 1), { stream: true }));
      at = end + 1;
      this.start = offset + at;
    }
    if (at < bytes.length) this.terminal.write(this.decoder.decode(bytes.subarray(at), { stream: true }));
  }

  get current() { return { offset: this.start, spans: this.terminal.current }; }

  get empty() { return this.terminal.empty; }
}

/** When a byte was read and where it came from: sorted [offset, time, source]. */
export class Marks {
  constructor() { this.list = []; }

  add(marks) {
    if (!marks.length) return;
    const last = this.list.at(-1);
    if (!last || marks[0][0] > last[0]) this.list.push(...marks);
    else {
      const all = new Map([...marks, ...this.list].map((mark) => [mark[0], mark]));
      this.list = [...all.values()].sort((a, b) => a[0] - b[0]);
    }
  }

  /** The mark in force at an offset, or null. */
  at(offset) {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle][0] <= offset) low = middle + 1;
      else high = middle;
    }
    return this.list[low - 1] ?? null;
  }

  /** Forget what lies before an offset. */
  forget(offset) {
    const keep = this.list.findIndex((mark) => mark[0] > offset) - 1;
    if (keep > 0) this.list.splice(0, keep);
  }
}
