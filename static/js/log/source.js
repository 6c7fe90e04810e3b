// The lines of one stream, by number: pages from the server, and what comes in live at the end.
import { PLAIN, replay, sgr } from "./ansi.js";
import { LogStream, get } from "./stream.js";
import { Ring } from "./ring.js";

export const PAGE = 500;
const KEPT = 24;

/**
 * `total` lines, of which any page can be asked for; a page that is not there yet has rows that say so, is fetched, and
 * `changed()` is called when it has come. `changed` is called as well when lines come in and when the state changes.
 */
export class Source {
  constructor(stream, changed) {
    Object.assign(this, { rank: stream.rank, name: stream.name, url: stream.url, id: stream.id, changed });
    this.pages = new Map();
    this.asked = new Map();
    this.total = 0;
    this.committed = 0;
    this.link = "connecting";
    this.tries = 0;
    this.ended = null;
    this.sha256 = null;
    this.errors = 0;
    this.lastOutput = null;
    this.states = false;
    this.ring = new Ring();
    this.rate = 0;
    this.failed = null;
    this.opened = this.open();
  }

  close() {
    this.closed = true;
    this.live?.close();
    clearInterval(this.meter);
  }

  async open() {
    let last;
    try {
      last = await get(`${this.url}/lines?from=-1&n=1`);
    } catch (problem) {
      if (this.closed) return;
      this.link = problem.gone ? "gone" : "reconnecting";
      this.tries += 1;
      this.changed();
      if (problem.gone) return;
      await new Promise((resolve) => setTimeout(resolve, Math.min(15_000, 500 * 2 ** this.tries)));
      return this.closed ? undefined : this.open();
    }
    if (this.closed) return;
    this.tries = 0;
    this.take(last);
    if (this.ended !== null) {
      this.link = "ended";
      this.changed();
      return;
    }
    // From the beginning of a line that has no end yet, if that is not far.
    const open = last.open ? last.lines[0] : null;
    const near = open && last.committed - open.offset <= 65_536;
    this.ring.begin(open ? last.total : last.total + 1, near ? open.offset : last.committed, open && !near ? open : null);
    this.started = performance.now();
    this.counted = 0;
    this.meter = setInterval(() => this.measure(), 1000);
    this.live = new LogStream({ id: this.id, url: this.url, from: near ? open.offset : last.committed }, {
      marks: (marks) => this.ring.marks.add(marks),
      bytes: (offset, data) => this.arrived(offset, data),
      end: (end) => this.finish(end),
      state: (link, tries) => { this.link = link; this.tries = tries; this.changed(); },
    });
  }

  take({ total, committed, ended, sha256, errors, last_output_at: output, masked, too_short: tooShort }) {
    this.total = Math.max(this.total, total);
    this.committed = Math.max(this.committed, committed);
    Object.assign(this, { ended, sha256, errors, masked, tooShort, lastOutput: output ?? this.lastOutput });
  }

  arrived(offset, data) {
    const before = this.ring.last;
    this.ring.push(offset, data);
    this.counted += this.ring.last - before;
    this.committed = Math.max(this.committed, offset + data.length);
    this.total = Math.max(this.total, this.ring.last);
    this.lastOutput = Date.now() / 1000;
    this.changed();
  }

  measure() {
    this.rate = this.counted;
    this.counted = 0;
    if (this.rate || this.shownRate) this.changed();
    this.shownRate = this.rate;
  }

  finish({ total, sha256, reason }) {
    this.ended = /^(|complete|ended|end)$/i.test(reason) ? "complete" : reason;
    this.sha256 = sha256;
    this.committed = total;
    this.link = "ended";
    clearInterval(this.meter);
    this.rate = 0;
    this.changed();
  }

  // -- pages -----------------------------------------------------------------------------------------

  get pageCount() { return Math.max(1, Math.ceil(this.total / PAGE)); }

  pageOf(number) { return Math.floor((Math.max(1, number) - 1) / PAGE); }

  /** {rows, index of the row of a line number}. */
  page(index) {
    const page = this.lines(index);
    if (!page) return absent(index, Math.min(PAGE, this.total - index * PAGE));
    if (page.drawn !== page.version || page.drawnStates !== this.states) this.draw(page);
    return page;
  }

  draw(page) {
    const before = this.pages.get(page.index - 1);
    const style = page.style ?? (before?.complete ? before.endStyle : null) ?? PLAIN;
    const { rows, style: end } = replay(page.lines, style, { states: this.states });
    const first = page.index * PAGE + 1;
    page.endStyle = end;
    page.rows = rows;
    page.rowOf = new Map();
    rows.forEach((row, at) => {
      const line = page.lines[row.number - first];
      row.pos = row.number;
      row.time = line.time;
      row.source = line.source;
      row.more = line.more;
      row.offset = line.offset;
      if (!page.rowOf.has(row.number)) page.rowOf.set(row.number, at);
    });
    page.drawn = page.version;
    page.drawnStates = this.states;
  }

  /** A page's lines, as far as they are here; null, and it is fetched, if none are. */
  lines(index) {
    let page = this.pages.get(index);
    if (page) {
      this.pages.delete(index);
      this.pages.set(index, page);
    }
    const first = index * PAGE + 1;
    if (!page?.complete) {
      const have = page ? page.lines.length - (page.lines.at(-1)?.open ? 1 : 0) : 0;
      const missing = first + have;
      const end = Math.min(this.total, first + PAGE - 1);
      if (missing <= end && this.ring.has(missing)) {
        page ??= this.keep({ index, lines: [], version: 0, style: null });
        page.lines.length = have;
        for (let number = missing; number <= end; number += 1) page.lines.push(this.ring.line(number));
        const changed = page.seen !== this.ring.version;
        page.seen = this.ring.version;
        if (changed) page.version += 1;
        page.complete = page.lines.length === PAGE && !page.lines.at(-1).open;
      } else if (missing <= end && !(page && this.whole(page))) this.ask(index);
    }
    return page ?? null;
  }

  /** Whether nothing is missing of a page, but a line's end. */
  whole(page) {
    return page.index * PAGE + page.lines.length >= Math.min(this.total, (page.index + 1) * PAGE) && this.ended !== null;
  }

  keep(page) {
    this.pages.set(page.index, page);
    if (this.pages.size > KEPT) this.pages.delete(this.pages.keys().next().value);
    return page;
  }

  ask(index) {
    if (!this.asked.has(index)) this.asked.set(index, this.fetch(index));
    return this.asked.get(index);
  }

  async fetch(index) {
    const lines = [];
    let style = null;
    let next = index * PAGE + 1;
    const last = next + PAGE - 1;
    try {
      while (next !== null && next <= last) {
        const piece = await get(`${this.url}/lines?from=${next}&n=${last - next + 1}`);
        style ??= sgr(PLAIN, piece.sgr);
        this.take(piece);
        lines.push(...piece.lines.map(shown));
        if (piece.open && piece.next === null && lines.length) lines.at(-1).open = true;
        if (!piece.lines.length) break;
        next = piece.next;
      }
      this.failed = null;
      this.keep({ index, lines, style, version: 1, complete: lines.length === PAGE && !lines.at(-1).open });
    } catch (problem) {
      if (problem.gone) this.link = "gone";
      this.failed = problem;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    } finally {
      this.asked.delete(index);
      if (!this.closed) this.changed();
    }
  }

  setStates(on) {
    this.states = on;
    this.changed();
  }

  /** Put the text of a whole line, or more of it, in its place. */
  async more(number) {
    const page = this.pages.get(this.pageOf(number));
    const line = page?.lines[number - page.index * PAGE - 1];
    if (!line || line.loading) return;
    line.loading = true;
    const from = line.shownTo ?? line.end - line.offset - line.more;
    const piece = await get(`${this.url}/lines/${number}?from=${from}`).finally(() => { line.loading = false; });
    line.text += piece.text;
    line.shownTo = piece.next ?? piece.bytes;
    line.more = piece.bytes - line.shownTo;
    page.version += 1;
    this.changed();
  }
}

/** A line as it is shown: of one that was written over and over, what was written last. */
function shown(line) {
  if (!line.tail) return line;
  return { ...line, text: line.tail, more: 0 };
}

function absent(index, count) {
  const first = index * PAGE + 1;
  const rows = [];
  const rowOf = new Map();
  for (let i = 0; i < count; i += 1) {
    rows.push({ pos: first + i, number: first + i, last: first + i, sub: 0, spans: [], more: 0, loading: true });
    rowOf.set(first + i, i);
  }
  return { index, rows, rowOf, lines: [], absent: true };
}
