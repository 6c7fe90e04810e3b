// The newest lines of a stream that is being written, kept as bytes: text is made of those that are looked at.

const LINES = 3000;
const SHOWN = 4096;
const OPEN = 65_536;
const decoder = new TextDecoder("utf-8");

export class Ring {
  constructor() {
    this.marks = new Marks();
    this.version = 0;
    this.begin(1, 0, null);
  }

  /** What comes next is line `number`, at `offset`; `before`: the part of it that was there, as the server said it. */
  begin(number, offset, before) {
    this.finished = [];
    this.first = number;
    this.number = number;
    this.start = before ? before.offset : offset;
    this.before = before;
    this.open = [];
    this.openSize = 0;
  }

  /** The number of the last line that has a byte. */
  get last() { return this.openSize || this.before ? this.number : this.number - 1; }

  has(number) { return number >= this.first && number <= this.last; }

  push(offset, bytes) {
    this.version += 1;
    let at = 0;
    for (;;) {
      const end = bytes.indexOf(10, at);
      if (end === -1) break;
      this.add(bytes.subarray(at, end));
      this.finished.push({ offset: this.start, bytes: this.joined(), size: this.size, before: this.before });
      this.number += 1;
      this.before = null;
      this.open = [];
      this.openSize = 0;
      at = end + 1;
      this.start = offset + at;
    }
    if (at < bytes.length) this.add(bytes.subarray(at));
    if (this.finished.length > 2 * LINES) {
      this.finished.splice(0, this.finished.length - LINES);
      this.first = this.number - this.finished.length;
      this.marks.forget(this.finished[0].offset);
    }
  }

  get size() { return this.openSize + (this.before ? this.before.end - this.before.offset : 0); }

  add(bytes) {
    this.open.push(bytes);
    this.openSize += bytes.length;
    // Of a line without end its beginning and its last part are enough.
    if (this.openSize > OPEN && this.open.length > 3) {
      const joined = this.joined();
      this.open = [joined.subarray(0, SHOWN), joined.subarray(joined.length - SHOWN)];
    }
  }

  joined() {
    if (this.open.length === 1) return this.open[0];
    const all = new Uint8Array(this.open.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.open) { all.set(part, at); at += part.length; }
    this.open = [all];
    return all;
  }

  line(number) {
    const open = number === this.number;
    const kept = open
      ? { offset: this.start, bytes: this.joined(), size: this.size, before: this.before }
      : this.finished[number - this.first];
    const mark = this.marks.at(kept.offset);
    return {
      number, offset: kept.offset, end: kept.offset + kept.size, open,
      ...text(kept), time: mark?.[1] ?? null, source: mark?.[2] ?? null,
    };
  }
}

function text({ bytes, size, before }) {
  if (before) return { text: before.text, more: size - (before.end - before.offset - before.more) };
  if (size <= SHOWN) return { text: decoder.decode(bytes), more: 0 };
  const head = bytes.subarray(0, SHOWN);
  if (head.includes(13)) {
    const tail = bytes.subarray(-SHOWN);
    const cut = tail.indexOf(13);
    return { text: decoder.decode(tail.subarray(cut + 1)), more: 0 };
  }
  const part = new TextDecoder("utf-8").decode(head, { stream: true });
  return { text: part, more: size - SHOWN };
}

/** When a byte was read and where it came from: sorted [offset, time, source]. */
export class Marks {
  constructor() { this.list = []; }

  add(marks) {
    const last = this.list.at(-1)?.[0] ?? -1;
    this.list.push(...marks.filter((mark) => mark[0] > last));
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
