// A window on a book of rows: as many elements as fit, a scrollbar for all of them.
//
// Browsers cut elements off at some 17 to 33 million pixels; at 20 px a line that is less than a million lines. So the
// scrollbar belongs to a spacer of at most TALLEST pixels, and where it stands is a share of the lines. What is read is
// held by the anchor: a row and how far it is scrolled. Small moves (wheel, fingers, keys) move the anchor by pixels,
// large ones (dragging the bar) go to a share. Rows are as high as they are: only those on screen are measured.
import { element, signature } from "./rows.js";

export const TALLEST = 16_000_000;
const AROUND = 30;
const MOST_ROWS = 300;
const SETTLE = 150;

export class View {
  /**
   * `book`: {total, pageOf(position), page(index) → {rows, rowOf}}, may be replaced. `moved({user})` is called after
   * each frame that drew something and whenever the reader has moved; `look` is that of `element`.
   */
  constructor(scroller, look, moved) {
    this.scroller = scroller;
    this.look = look;
    this.moved = moved;
    this.spacer = scroller.querySelector(".log-spacer");
    this.sheet = scroller.querySelector(".log-sheet");
    this.root = scroller.querySelector(".log-lines");
    this.elements = new Map();
    this.book = null;
    this.atEnd = false;
    this.reset(null);
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    scroller.addEventListener("pointerdown", (event) => {
      this.dragging = event.target === scroller;
    });
    addEventListener("pointerup", () => { this.dragging = false; this.settle(); });
    new ResizeObserver(() => {
      this.sheet.style.height = `${scroller.clientHeight}px`;
      this.measured = null;
      this.schedule();
    }).observe(scroller);
  }

  reset(book) {
    this.book = book;
    this.anchor = { pos: 1, sub: 0, offset: 0 };
    this.goal = null;
    this.pending = 0;
    this.elements.clear();
    this.root.replaceChildren();
    this.generation = (this.generation ?? 0) + 1;
    this.schedule();
  }

  /** Draw everything anew: how rows look has changed. */
  restyle() {
    this.elements.clear();
    this.generation += 1;
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

  // -- where the reader is ---------------------------------------------------------------------------

  /** Hold the end: the last row is at the bottom. */
  toEnd() {
    this.atEnd = true;
    this.goal = null;
    this.schedule();
  }

  toStart() { this.goTo(1, 0, 0); }

  /** Bring a row to a share of the window's height: 0 is its top. */
  goTo(pos, share = 0.3, sub = 0) {
    this.atEnd = false;
    const total = Math.max(1, this.book?.total ?? 1);
    // Held until what is around it is here: then rows have their heights.
    this.goal = { pos: Math.max(1, Math.min(pos, total)), sub, share };
    this.schedule();
  }

  moveBy(pixels) {
    this.atEnd = false;
    this.goal = null;
    this.pending = (this.pending ?? 0) + pixels;
    this.schedule();
  }

  moveLines(count) { this.moveBy(count * this.lineHeight); }

  get height() { return this.scroller.clientHeight || 1; }

  get lineHeight() {
    return this.measured ??= Number.parseFloat(getComputedStyle(this.root).lineHeight) || 20;
  }

  /** The first row that can be seen in full, and the last one. */
  get visible() {
    const top = this.top ?? 0;
    const children = [...this.root.children];
    const first = children.find((child) => child.offsetTop >= top - 1) ?? children[0];
    const last = children.findLast((child) => child.offsetTop < top + this.height) ?? children.at(-1);
    return [first?.row ?? null, last?.row ?? null];
  }

  // -- drawing ---------------------------------------------------------------------------------------

  find(anchor) {
    const index = this.book.pageOf(anchor.pos);
    const page = this.book.page(index);
    let at = page.rowOf.get(anchor.pos);
    // A line that only wrote on rows above it belongs to the row before.
    for (let pos = anchor.pos; at === undefined && pos >= 1 && this.book.pageOf(pos) === index; pos -= 1) at = page.rowOf.get(pos);
    at ??= 0;
    while (anchor.sub > (page.rows[at]?.sub ?? 0) && page.rows[at + 1]?.pos === anchor.pos) at += 1;
    return { index, page, at };
  }

  *from({ index, page, at }, step) {
    const pages = this.book.pageCount;
    for (;;) {
      at += step;
      while (at < 0 || at >= page.rows.length) {
        index += step;
        if (index < 0 || index >= pages) return;
        page = this.book.page(index);
        at = step > 0 ? 0 : page.rows.length - 1;
        if (!page.rows.length) { if (step < 0) continue; return; }
      }
      yield page.rows[at];
    }
  }

  collect() {
    const { book } = this;
    if (this.atEnd) this.anchor = { pos: book.total, sub: Infinity, offset: 0 };
    if (this.goal) {
      this.anchor = { pos: this.goal.pos, sub: this.goal.sub, offset: 0 };
      this.pending = -Math.round(this.goal.share * this.height);
    }
    this.anchor.pos = Math.min(this.anchor.pos, book.total);
    const place = this.find(this.anchor);
    const fit = Math.ceil(this.height / this.lineHeight) + 1;
    const pending = Math.ceil(Math.abs(this.pending ?? 0) / this.lineHeight);
    const up = Math.min(MOST_ROWS / 2, AROUND + (this.atEnd ? fit : 0) + ((this.pending ?? 0) < 0 ? pending : 0));
    const down = Math.min(MOST_ROWS / 2, AROUND + fit + ((this.pending ?? 0) > 0 ? pending : 0));
    const before = take(this.from(place, -1), up).reverse();
    const here = place.page.rows[place.at];
    const after = take(this.from(place, 1), down);
    return { rows: here ? [...before, here, ...after] : before, at: here ? before.length : 0,
      first: before.length < up, last: after.length < down };
  }

  draw() {
    const { book, root } = this;
    if (!book?.total) {
      root.replaceChildren();
      this.elements.clear();
      this.moved({});
      return;
    }
    const { rows, at, first, last } = this.collect();
    this.reconcile(rows);
    this.lastDrawn = last;
    const anchor = root.children[at];
    if (!anchor) return;
    const bottom = root.scrollHeight - this.height;
    let top = this.atEnd ? bottom : anchor.offsetTop + Math.min(this.anchor.offset, anchor.offsetHeight - 1) + (this.pending ?? 0);
    this.pending = 0;
    let ended = false;
    if (last && top >= bottom - 1) { top = bottom; ended = true; }
    if (top < 0 || (first && top <= 0)) top = 0;
    // Past what was drawn, which is more than a window away: as far as we have it.
    if (!last) top = Math.min(top, Math.max(0, bottom));
    top = Math.round(top);
    this.top = top;
    this.reachesEnd = ended;
    root.style.transform = `translateY(${-top}px)`;
    this.hold(top);
    if (this.goal && !rows.some((row) => row.loading)) this.goal = null;
    this.stretch();
    const resized = this.resized();
    this.size = this.sizeNow();
    if (!this.scrolling || this.atEnd || resized) this.place();
    this.moved({});
  }

  /** Make the row at the top of the window the anchor. */
  hold(top) {
    for (const child of this.root.children) {
      if (child.offsetTop + child.offsetHeight > top) {
        this.anchor = { pos: child.row.pos, sub: child.row.sub, offset: Math.max(0, top - child.offsetTop) };
        return;
      }
    }
  }

  reconcile(rows) {
    const { root, elements } = this;
    const wanted = new Map();
    let at = root.firstChild;
    for (const row of rows) {
      const key = `${row.pos}.${row.sub}`;
      let child = elements.get(key);
      if (child?.row !== row) {
        const drawn = signature(row);
        if (child?.drawn !== drawn) {
          const fresh = element(row, this.look);
          fresh.drawn = drawn;
          if (child?.parentNode === root) {
            if (at === child) at = child.nextSibling;
            child.remove();
          }
          child = fresh;
        }
        child.row = row;
      }
      wanted.set(key, child);
      if (child === at) at = at.nextSibling;
      else root.insertBefore(child, at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
    this.elements = wanted;
  }

  sizeNow() { return `${this.scroller.clientWidth}x${this.scroller.clientHeight}`; }

  /** Whether the window has another size than when it was drawn. */
  resized() { return this.size !== undefined && this.size !== this.sizeNow(); }

  // -- the scrollbar ---------------------------------------------------------------------------------

  stretch() {
    const wanted = Math.max(this.height, Math.min(TALLEST, Math.round(this.book.total * this.lineHeight)));
    this.scale = (this.book.total * this.lineHeight) / wanted;
    // All rows are here: what they measure is the truth.
    const all = this.root.children.length && this.root.firstChild.row.pos === 1 && this.reachesEndOf();
    const tall = all ? Math.max(this.height, this.root.scrollHeight) : wanted;
    if (tall !== this.tall) {
      this.tall = tall;
      this.spacer.style.height = `${tall}px`;
    }
    this.all = all;
  }

  reachesEndOf() { return this.lastDrawn; }

  get room() { return Math.max(0, this.tall - this.height); }

  /** Put the scrollbar where the reader is. */
  place() {
    let top;
    if (this.reachesEnd) top = this.room;
    else if (this.all) top = this.top;
    else {
      const child = this.elements.get(`${this.anchor.pos}.${this.anchor.sub}`);
      const part = child?.offsetHeight ? this.anchor.offset / child.offsetHeight : 0;
      const lines = Math.max(1, this.book.total - this.height / this.lineHeight);
      top = Math.min(this.room, ((this.anchor.pos - 1 + part) / lines) * this.room);
    }
    if (Math.abs(this.scroller.scrollTop - top) >= 1) this.scroller.scrollTop = top;
    this.last = this.scroller.scrollTop;
  }

  scrolled() {
    const { scroller } = this;
    const top = scroller.scrollTop;
    const by = top - (this.last ?? 0);
    if (!by || !this.book?.total) return;
    // A window of another size moves the scrollbar, too; the reader has not moved.
    if (this.resized()) return void this.schedule();
    this.last = top;
    this.scrolling = true;
    this.settle();
    this.atEnd = false;
    if (this.all) this.moveBy(top - this.top - (this.pending ?? 0));
    else if (this.dragging || Math.abs(by) > 4 * this.height) {
      const share = this.room ? top / this.room : 0;
      const lines = Math.max(1, this.book.total - this.height / this.lineHeight);
      const exact = share * lines;
      if (share >= 1) this.goTo(this.book.total, 1);
      else {
        this.goal = null;
        this.anchor = { pos: Math.min(this.book.total, Math.floor(exact) + 1), sub: 0, offset: 0 };
        this.pending = (exact % 1) * this.lineHeight;
        this.schedule();
      }
    } else {
      this.moveBy(by);
      // The bar has come to an end before the lines have: give it room again.
      if (top <= 0 || top >= this.room - 1) this.scrolling = false;
    }
    this.moved({ up: by < 0, user: true });
  }

  settle() {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      if (this.dragging) return;
      this.scrolling = false;
      if (this.book?.total && this.root.firstChild) this.place();
      this.moved({ settled: true });
    }, SETTLE);
  }
}

function take(rows, count) {
  const found = [];
  if (count <= 0) return found;
  for (const row of rows) {
    found.push(row);
    if (found.length >= count) break;
  }
  return found;
}
