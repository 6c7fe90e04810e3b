// Search over the whole log, on the server: how many lines match, where, the next one, only those.
import { PLAIN, replay } from "./ansi.js";
import { get } from "./stream.js";

const TYPING = 250;
const MOST_KEPT = 200_000;
const CHUNK = 100;
const LIVE_EVERY = 1000;
const HIGHLIGHTED = 4096;

export class Search {
  /** `pane`: {source(), view, go(line), book(book), stop(), back()}. */
  constructor(root, pane) {
    this.pane = pane;
    const part = (selector) => root.querySelector(selector);
    this.input = part(".log-query");
    this.found = part("[data-log-found]");
    this.count = part("[data-log-count]");
    this.filter = part("[data-log-filter]");
    this.map = part(".log-map");
    this.downloads = [[part("[data-log-matching]"), ""], [part("[data-log-matching-plain]"), "&plain=1"]];
    this.flags = { case: false, word: false, regex: false };
    this.filtered = null;
    this.clear();
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.start(), TYPING);
    });
    this.input.addEventListener("keydown", (event) => this.key(event));
    part("[data-log-search]").addEventListener("submit", (event) => event.preventDefault());
    for (const button of root.querySelectorAll("[data-flag]")) {
      button.addEventListener("click", () => {
        const on = (this.flags[button.dataset.flag] = !this.flags[button.dataset.flag]);
        button.setAttribute("aria-pressed", String(on));
        this.start();
      });
    }
    for (const button of root.querySelectorAll("[data-log-hit]")) {
      button.addEventListener("click", () => this.step(Number(button.dataset.logHit)));
    }
    this.filter.addEventListener("change", () => this.applyFilter());
    this.map.addEventListener("click", (event) => {
      const book = this.pane.view.book;
      if (book) this.pane.view.goTo(1 + Math.floor((event.offsetY / this.map.clientHeight) * book.total));
      this.pane.stop();
    });
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  clear() {
    this.query = "";
    this.lines = [];
    this.total = 0;
    this.next = 0;
    this.at = null;
    this.pattern = null;
    this.problem = "";
    this.run = (this.run ?? 0) + 1;
    this.busy = false;
  }

  /** The stream has changed: what was found in it means nothing now; what was asked for does. */
  leave() {
    const again = this.query;
    this.filtered = null;
    this.filter.value = "";
    this.clear();
    this.show();
    if (again) queueMicrotask(() => this.start(false));
  }

  key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(this.timer);
      if (this.input.value !== this.query) this.start();
      else this.step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (this.input.value) {
        this.input.value = "";
        this.start();
      }
      this.pane.back();
    }
  }

  get parameters() {
    const all = new URLSearchParams({ q: this.query });
    for (const [name, on] of Object.entries(this.flags)) if (on) all.set(name, "1");
    if (this.filtered === "not" || this.filter.value === "not") all.set("invert", "1");
    return all;
  }

  async start(jump = true) {
    const query = this.input.value;
    this.clear();
    this.query = query;
    this.pattern = pattern(query, this.flags);
    this.pane.view.restyle();
    this.show();
    if (!query) return this.leaveFilter();
    if (jump) this.pane.stop();
    const run = this.run;
    const here = this.pane.view.visible[0]?.number ?? 1;
    await this.scan(run, jump && this.filter.value === "" ? () => this.firstFrom(here) : null);
    if (run === this.run && this.filter.value) this.applyFilter();
  }

  /** Go on over what has not been looked at, piece by piece. */
  async scan(run, onFirst = null) {
    if (this.busy) return;
    this.busy = true;
    const source = this.pane.source();
    try {
      while (run === this.run && source && this.next < source.committed) {
        const answer = await get(`${source.url}/search?${this.parameters}&from=${this.next}`);
        if (run !== this.run) return;
        this.total += answer.lines.length;
        if (this.lines.length < MOST_KEPT) for (const line of answer.lines) this.lines.push(line);
        this.next = answer.next;
        this.problem = "";
        if (onFirst?.()) onFirst = null;
        this.show();
        this.pane.view.schedule();
        if (answer.done) break;
      }
      if (onFirst && this.lines.length && run === this.run) this.jump(0);
    } catch (problem) {
      if (run === this.run) this.problem = problem.message;
    } finally {
      if (run === this.run) {
        this.busy = false;
        this.show();
      }
    }
  }

  /** The log has grown. */
  grown() {
    if (!this.query || this.busy || this.growing) return;
    this.growing = true;
    setTimeout(async () => {
      this.growing = false;
      if (this.query) await this.scan(this.run);
    }, LIVE_EVERY);
  }

  firstFrom(line) {
    const at = lowest(this.lines, line);
    if (at === this.lines.length) return false;
    this.jump(at);
    return true;
  }

  jump(at) {
    this.at = at;
    const line = this.lines[at];
    if (this.filtered) this.pane.view.goTo(this.book.positionOf(line));
    else this.pane.go(line);
    this.show();
    this.pane.view.restyle();
  }

  /** The next hit, or the one before; around the end. */
  step(by) {
    if (!this.query) return this.focus();
    this.pane.stop();
    if (!this.lines.length) return;
    const here = this.pane.view.visible[0]?.number ?? 1;
    let at = this.at === null ? lowest(this.lines, here) - (by > 0 ? 1 : 0) + by : this.at + by;
    if (this.at === null && by > 0) at = lowest(this.lines, here);
    this.jump((at + this.lines.length) % this.lines.length);
  }

  get current() { return this.at === null ? null : this.lines[this.at]; }

  show() {
    this.found.hidden = !this.query;
    this.input.classList.toggle("is-wrong", Boolean(this.problem));
    this.input.title = this.problem;
    const number = (value) => value.toLocaleString("en");
    let text = this.total ? `${this.at === null ? "" : `${number(this.at + 1)} of `}${number(this.total)}` : "none";
    if (this.total && this.at === null) text += this.total === 1 ? " line" : " lines";
    if (this.busy) text = this.total ? `${text} …` : "searching …";
    if (this.problem) text = this.problem;
    if (this.count.textContent !== text) this.count.textContent = text;
    const source = this.pane.source();
    for (const [link, how] of this.downloads) {
      link.hidden = !source || !this.query || Boolean(this.problem);
      if (!link.hidden) link.href = `${source.url}/raw?${this.parameters}${how}`;
    }
  }

  /** Where hits are in a row's text: [[from, to], …]. */
  hits(text) {
    if (!this.pattern) return [];
    const found = [];
    for (const match of text.slice(0, HIGHLIGHTED).matchAll(this.pattern)) {
      if (match[0]) found.push([match.index, match.index + match[0].length]);
      if (found.length > 200) break;
    }
    return found;
  }

  // -- only some lines -------------------------------------------------------------------------------

  async applyFilter() {
    const value = this.filter.value;
    const inverted = this.filtered === "not";
    if (!value || !this.query) return this.leaveFilter();
    this.pane.stop();
    if ((value === "not") !== inverted && (value === "not" || inverted)) {
      this.filtered = value;
      const { query } = this;
      this.clear();
      this.query = query;
      this.pattern = pattern(query, this.flags);
      const run = this.run;
      await this.scan(run);
      if (run !== this.run) return;
    }
    this.filtered = value;
    const here = this.pane.view.visible[0]?.number ?? 1;
    this.book = new Picked(this.pane.source(), () => this.lines, Number(value) || 0, () => this.pane.view.schedule());
    this.pane.book(this.book);
    this.pane.view.goTo(this.book.positionOf(here));
    this.show();
  }

  leaveFilter() {
    const back = this.filtered;
    const here = this.pane.view.visible[0]?.number ?? 1;
    this.filtered = null;
    this.filter.value = "";
    if (!back) return;
    this.pane.book(this.pane.source());
    this.pane.view.goTo(here);
    if (back === "not" && this.query) this.start(false);
  }

  /** Ticks beside the scrollbar: where hits are. */
  drawMap() {
    const { map, pane } = this;
    const source = pane.source();
    const errors = pane.errorLines?.() ?? [];
    const shown = Boolean(source?.total) && !this.filtered && (this.lines.length > 0 || errors.length > 0);
    map.hidden = !shown;
    if (!shown) return;
    const [width, height] = [map.clientWidth, map.clientHeight];
    const key = `${this.run}.${this.lines.length}.${errors.length}.${source.total}.${height}.${this.at}.${document.documentElement.dataset.bsTheme}`;
    if (key === this.mapped) return;
    this.mapped = key;
    const ratio = devicePixelRatio || 1;
    map.width = width * ratio;
    map.height = height * ratio;
    const pen = map.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(map);
    const draw = (lines, colour, left, wide) => {
      pen.fillStyle = colour;
      let before = -1;
      for (const line of lines) {
        const y = Math.floor(((line - 1) / source.total) * (height - 2));
        if (y !== before) pen.fillRect(left, y, wide, 2);
        before = y;
      }
    };
    draw(errors, style.getPropertyValue("--map-error"), 0, width);
    draw(this.lines, style.getPropertyValue("--map-hit"), 2, width - 2);
    if (this.current) draw([this.current], style.getPropertyValue("--map-now"), 0, width);
  }
}

/** A book of some lines of a source: each with `around` lines before and after it. */
class Picked {
  constructor(source, lines, around, changed) {
    this.source = source;
    this.hits = lines;
    this.around = around;
    this.changed = changed;
    this.pages = new Map();
    this.asked = new Set();
    this.numbers = [];
    this.used = 0;
    this.grow();
  }

  grow() {
    const hits = this.hits();
    const { numbers, around } = this;
    for (; this.used < hits.length; this.used += 1) {
      const from = Math.max(hits[this.used] - around, (numbers.at(-1) ?? 0) + 1);
      for (let line = from; line <= Math.min(hits[this.used] + around, this.source.total); line += 1) numbers.push(line);
    }
  }

  get total() { this.grow(); return this.numbers.length; }

  get pageCount() { return Math.max(1, Math.ceil(this.numbers.length / CHUNK)); }

  pageOf(position) { return Math.floor((Math.max(1, position) - 1) / CHUNK); }

  positionOf(line) { return Math.min(this.total, lowest(this.numbers, line) + 1); }

  page(index) {
    const numbers = this.numbers.slice(index * CHUNK, (index + 1) * CHUNK);
    const page = this.pages.get(index);
    if (page?.rows.length === numbers.length) return page;
    this.fetch(index, numbers);
    return page ?? laid(index, numbers.map((number) => ({ number, last: number, spans: [], more: 0, loading: true })));
  }

  async fetch(index, numbers) {
    const key = `${index}.${numbers.length}`;
    if (!numbers.length || this.asked.has(key)) return;
    this.asked.add(key);
    try {
      const { lines } = await get(`${this.source.url}/picked?lines=${numbers.join(",")}`);
      this.pages.set(index, laid(index, lines.map((line) => {
        const { rows } = replay([{ number: line.number, text: line.tail || line.text }], PLAIN);
        return { ...rows[0], number: line.number, last: line.number, more: 0, time: line.time, source: line.source, offset: line.offset };
      })));
    } catch { /* asked again when it is looked at again */ }
    this.asked.delete(key);
    this.changed();
  }
}

function laid(index, rows) {
  const rowOf = new Map();
  rows.forEach((row, at) => {
    row.pos = index * CHUNK + at + 1;
    row.sub = 0;
    rowOf.set(row.pos, at);
  });
  return { index, rows, rowOf };
}

/** The first place in a sorted list that is not below a value. */
function lowest(list, value) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What to highlight. The server's expressions never backtrack, a browser's do: of those only harmless ones. */
function pattern(query, flags) {
  if (!query) return null;
  let source = query;
  if (!flags.regex) source = query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  else if (/\)[*+?{]/.test(query) || (query.match(/[*+]|\{\d*,/g)?.length ?? 0) > 1) return null;
  if (flags.word) source = `\\b(?:${source})\\b`;
  try {
    return new RegExp(source, flags.case ? "g" : "gi");
  } catch {
    return null;
  }
}
