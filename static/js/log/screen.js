// The lines on the page: added at the bottom once a frame, dropped at the top when there are too many.
import { render } from "./ansi.js";
import { exact } from "../times.js";

export const MOST = 20_000;
const BLOCK = 250;
const PER_FRAME = 4000;

export class Screen {
  /** `root` gets the lines, `scroller` scrolls; `changed(added)` is called after a frame that drew something. */
  constructor(root, scroller, changed) {
    this.root = root;
    this.scroller = scroller;
    this.changed = changed;
    this.times = "off";
    this.reset(null);
  }

  reset(marks) {
    this.marks = marks;
    this.started = null;
    this.waiting = [];
    this.current = null;
    this.count = 0;
    this.held = false;
    /** Where the first line on the page begins; null while there is none. */
    this.first = null;
    this.root.replaceChildren();
    this.tail = document.createElement("div");
    this.tail.className = "log-block log-tail";
    this.root.append(this.tail);
    this.unfinished = null;
  }

  add(line) {
    this.waiting.push(line);
    this.schedule();
  }

  /** The line that is still being written; null if there is none. */
  setCurrent(line) {
    this.current = line;
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  draw() {
    // What would be dropped at once need not be drawn at all.
    if (this.waiting.length > MOST) {
      this.root.replaceChildren(this.tail);
      this.tail.replaceChildren();
      this.unfinished = null;
      this.waiting.splice(0, this.waiting.length - MOST);
      this.count = 0;
      this.first = this.waiting[0].offset;
    }
    const lines = this.waiting.splice(0, PER_FRAME);
    this.unfinished?.remove();
    this.unfinished = null;
    for (const line of lines) {
      this.first ??= line.offset;
      this.tail.append(this.element(line));
      if (this.tail.childElementCount >= BLOCK) this.closeBlock();
    }
    if (this.current && !this.waiting.length) {
      this.first ??= this.current.offset;
      this.unfinished = this.element(this.current);
      this.tail.append(this.unfinished);
    }
    this.count += lines.length;
    this.trim();
    if (this.waiting.length) this.schedule();
    this.changed(lines.length);
  }

  closeBlock() {
    this.tail.classList.remove("log-tail");
    this.tail = document.createElement("div");
    this.tail.className = "log-block log-tail";
    this.root.append(this.tail);
  }

  /** Drop the oldest lines; of a reader's page (`held`) only when it is twice as long as it should be. */
  trim() {
    while (this.count > MOST * (this.held ? 2 : 1) && this.root.firstElementChild !== this.tail) {
      const block = this.root.firstElementChild;
      this.count -= block.childElementCount;
      block.remove();
      this.first = Number(this.root.firstElementChild.firstElementChild?.dataset.offset ?? this.first);
      this.marks.forget(this.first);
    }
  }

  /** Put earlier lines on top; what the reader looks at stays where it is. */
  prepend(lines) {
    if (!lines.length) return;
    const before = this.scroller.scrollHeight - this.scroller.scrollTop;
    const blocks = [];
    for (let i = 0; i < lines.length; i += BLOCK) {
      const block = document.createElement("div");
      block.className = "log-block";
      block.append(...lines.slice(i, i + BLOCK).map((line) => this.element(line)));
      blocks.push(block);
    }
    this.root.prepend(...blocks);
    this.count += lines.length;
    this.first = lines[0].offset;
    this.scroller.scrollTop = this.scroller.scrollHeight - before;
  }

  element(line) {
    const element = document.createElement("div");
    element.className = "log-line";
    element.dataset.offset = line.offset;
    if (this.marks.at(line.offset)?.[2] === "stderr") element.classList.add("is-stderr");
    this.stamp(element, line.offset);
    render(element, line.spans);
    return element;
  }

  /** off, relative (to the attempt's start), local or utc; shown by CSS, so never copied with the text. */
  setTimes(times) {
    this.times = times;
    for (const element of this.root.querySelectorAll(".log-line")) this.stamp(element, Number(element.dataset.offset));
  }

  stamp(element, offset) {
    if (this.times === "off") delete element.dataset.time;
    else element.dataset.time = this.format(this.marks.at(offset)?.[1]);
  }

  format(time) {
    if (!time) return "";
    if (this.times === "utc") return new Date(time * 1000).toISOString().slice(11, 23);
    if (this.times === "local") return exact(time * 1000).slice(11);
    const since = time - (this.started ?? time);
    const sign = since < 0 ? "−" : "+";
    const ms = Math.round(Math.abs(since) * 1000);
    const pad = (value, size) => String(value).padStart(size, "0");
    return `${sign}${pad(Math.floor(ms / 3_600_000), 2)}:${pad(Math.floor(ms / 60_000) % 60, 2)}:`
      + `${pad(Math.floor(ms / 1000) % 60, 2)}.${pad(ms % 1000, 3)}`;
  }
}
