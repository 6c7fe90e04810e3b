// All ranks of an attempt as one log, by time. Lines that several ranks write alike are one row, if that is wanted.
import { PLAIN, replay } from "./ansi.js";
import { markOf } from "./place.js";
import { get } from "./stream.js";

const PAGE = 200;
const KEPT = 24;
const LOOK_EVERY = 2000;
const ALIKE_WITHIN = 5;

export class Merged {
  /** `url`: of the merged log; `live()`: whether more may come; `changed()` is called when there is something new. */
  constructor(url, { changed, live, collapse }) {
    Object.assign(this, { url, changed, live, collapse });
    this.ranks = "";
    this.clear();
    this.timer = setInterval(() => this.live() && !document.hidden && this.look(), LOOK_EVERY);
    this.opened = this.look();
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
  }

  clear() {
    this.pages = new Map();
    this.asked = new Set();
    this.total = 0;
  }

  /** Only these ranks: "" for all, "0,3" for two. */
  only(ranks) {
    this.ranks = ranks;
    this.clear();
    this.opened = this.look();
    return this.opened;
  }

  setCollapse(on) {
    this.collapse = on;
    for (const page of this.pages.values()) this.draw(page);
    this.changed();
  }

  ask(query) {
    return get(`${this.url}?${query}${this.ranks ? `&ranks=${this.ranks}` : ""}`);
  }

  async look() {
    const { total } = await this.ask("n=0&from=1").catch(() => ({ total: this.total }));
    if (this.closed || total === this.total) return;
    this.total = total;
    this.changed();
  }

  async positionAt(time) { return (await this.ask(`time=${time}&n=0`)).first; }

  get pageCount() { return Math.max(1, Math.ceil(this.total / PAGE)); }

  pageOf(position) { return Math.floor((Math.max(1, position) - 1) / PAGE); }

  page(index) {
    const count = Math.min(PAGE, this.total - index * PAGE);
    const page = this.pages.get(index);
    if (page) {
      this.pages.delete(index);
      this.pages.set(index, page);
    }
    if (!page || page.lines.length < count) this.fetch(index, count);
    if (page) return page;
    const rows = Array.from({ length: count }, (_, at) => {
      const pos = index * PAGE + at + 1;
      return { pos, number: pos, last: pos, sub: 0, spans: [], more: 0, loading: true };
    });
    return { rows, rowOf: new Map(rows.map((row, at) => [row.pos, at])) };
  }

  async fetch(index, count) {
    const key = `${index}.${count}.${this.ranks}`;
    if (this.asked.has(key)) return;
    this.asked.add(key);
    try {
      const { lines } = await this.ask(`from=${index * PAGE + 1}&n=${count}`);
      if (this.closed || !key.endsWith(`.${this.ranks}`)) return;
      const page = { index, lines };
      this.draw(page);
      this.pages.set(index, page);
      if (this.pages.size > KEPT) this.pages.delete(this.pages.keys().next().value);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
    this.asked.delete(key);
    if (!this.closed) this.changed();
  }

  draw(page) {
    page.rows = [];
    page.rowOf = new Map();
    const alike = new Map();
    for (const line of page.lines) {
      const text = line.tail || line.text;
      const first = this.collapse ? alike.get(text) : undefined;
      const mark = markOf({ rank: line.rank, name: line.stream });
      if (first && !first.ranks.has(mark) && Math.abs((line.time ?? 0) - (first.time ?? 0)) < ALIKE_WITHIN) {
        first.ranks.add(mark);
        first.times = first.ranks.size;
        first.label = `${first.mark}+${first.times - 1}`;
        continue;
      }
      const { rows } = replay([{ number: line.number, text }], PLAIN);
      const row = {
        ...rows[0], pos: line.position, sub: 0, number: line.number, last: line.number, more: 0, time: line.time,
        source: line.source, rank: line.rank, stream: line.stream, mark, label: mark, ranks: new Set([mark]),
      };
      if (this.collapse) alike.set(text, row);
      page.rowOf.set(row.pos, page.rows.length);
      page.rows.push(row);
    }
  }
}
