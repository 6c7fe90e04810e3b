// The error index: where the first error is, the next one from here, and a list over all ranks, earliest first.
import { titleOf } from "./place.js";
import { get } from "./stream.js";

const KINDS = { error: "error", traceback: "traceback", memory: "out of memory", nccl: "NCCL", killed: "killed", end: "end" };
const LISTED = 300;
const TICKS = 1500;

export class Errors {
  /** `sources()`: all streams of the attempt; `go(rank, name, line)` shows a line. */
  constructor(root, { sources, go, drawn }) {
    this.drawn = drawn;
    this.box = root.querySelector("[data-log-errors]");
    this.count = root.querySelector("[data-log-error-list]");
    this.list = root.querySelector("#log-error-list");
    this.sources = sources;
    this.go = go;
    this.source = null;
    this.total = 0;
    this.lines = [];
    this.count.addEventListener("click", () => this.toggle());
    root.addEventListener("click", (event) => {
      if (!this.list.hidden && !this.list.contains(event.target) && !this.count.contains(event.target)) this.hide();
    });
    this.list.addEventListener("keydown", (event) => event.key === "Escape" && (this.hide(), this.count.focus()));
  }

  show(all) {
    if (this.total === all) return;
    this.total = all;
    this.box.hidden = !all;
    this.count.textContent = all.toLocaleString("en");
    this.count.setAttribute("aria-label", `${all} error${all === 1 ? "" : "s"}: list them`);
  }

  /** Learn where the errors of a stream are, for ticks beside its scrollbar: the first ones. */
  async locate(source) {
    let next = 0;
    const found = [];
    while (next !== null && found.length < TICKS) {
      const answer = await get(`${source.url}/errors?from=${next}`).catch(() => ({ errors: [], next: null }));
      found.push(...answer.errors.map((error) => error.line));
      next = answer.next;
    }
    if (source === this.located) this.lines = found;
  }

  /** Call whenever the number of errors of a stream may have changed. */
  follow(source, count) {
    if (source === this.located && count === this.locatedCount) return;
    if (source !== this.located) this.lines = [];
    this.located = source;
    this.locatedCount = count;
    if (count) this.locate(source).then(() => this.located === source && this.drawn());
  }

  /** Where the error that matters is: the first traceback, or the first error line. Null: none. */
  static async first(source) {
    const found = await get(`${source.url}/errors?from=0`);
    return found.first?.line ?? found.errors[0]?.line ?? null;
  }

  /** The next error line after a row, or the one before it. */
  static async beside(source, row, step) {
    const here = await get(`${source.url}/errors?at=${(row.offset ?? 0) + (step > 0 ? 1 : 0)}`);
    if (step > 0) return here.errors[0]?.line ?? null;
    if (!here.from) return null;
    return (await get(`${source.url}/errors?from=${here.from - 1}`)).errors[0]?.line ?? null;
  }

  hide() {
    this.list.hidden = true;
    this.count.setAttribute("aria-expanded", "false");
  }

  async toggle() {
    if (!this.list.hidden) return this.hide();
    const answers = await Promise.all(this.sources().map(async (source) => {
      const { errors, total } = await get(`${source.url}/errors?from=0`);
      return { source, errors, total };
    }));
    const all = answers.flatMap(({ source, errors }) => errors.map((error) => ({ ...error, source })));
    all.sort((a, b) => (a.time ?? 0) - (b.time ?? 0) || a.source.rank - b.source.rank || a.offset - b.offset);
    const total = answers.reduce((sum, { total: some }) => sum + some, 0);
    const items = all.slice(0, LISTED).map((error) => this.item(error));
    const head = document.createElement("p");
    head.className = "log-error-head";
    head.textContent = total > items.length ? `The first ${items.length} of ${total.toLocaleString("en")} errors` : "Earliest first";
    this.list.replaceChildren(head, ...items);
    this.list.hidden = false;
    this.count.setAttribute("aria-expanded", "true");
    this.list.querySelector("button")?.focus();
  }

  item({ source, line, kind, text, time }) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "log-error";
    const where = document.createElement("span");
    where.className = "log-error-where num";
    const stamp = time ? `${new Date(time * 1000).toISOString().slice(11, 23)} ` : "";
    where.textContent = `${stamp}${titleOf(source)} · ${line.toLocaleString("en")}`;
    const what = document.createElement("span");
    what.className = "log-error-text";
    what.textContent = text;
    button.title = KINDS[kind] ?? kind;
    button.append(where, what);
    button.addEventListener("click", () => {
      this.hide();
      this.go(source.rank, source.name, line);
    });
    return button;
  }
}
