// The log pane of the run page: which stream, how it is shown, and what is said about it.
import { Errors } from "./errors.js";
import { bindKeys, drawKeys } from "./keys.js";
import { choose, options } from "./options.js";
import { address, copy, gpuOf, range, timeOf } from "./place.js";
import { Merged } from "./merged.js";
import { Search } from "./search.js";
import { Source } from "./source.js";
import { describe, over, whyEmpty } from "./state.js";
import { get } from "./stream.js";
import { Tabs } from "./tabs.js";
import { View } from "./view.js";

const SAY_EVERY = 8000;
const LOOK_EVERY = 5000;
const TIMES = ["off", "relative", "local", "utc"];
const INTENT = 1000;

export class LogPane {
  /** `streams()` is the list element that says which streams there are; it may be replaced at any time. */
  constructor(root, streams) {
    this.root = root;
    this.streams = streams;
    const part = (selector) => root.querySelector(selector);
    this.part = part;
    this.scroller = part(".log-scroll");
    this.pill = part(".log-pill");
    this.stateLine = part(".log-state");
    this.emptyLine = part(".log-empty");
    this.said = part("[data-log-said]");
    this.attempt = Number(root.dataset.attempt);
    this.tabs = new Tabs(part(".log-ranks"), (one) => this.open(one), () => this.merge());
    this.look = {
      times: options.times, started: null, hits: (text) => this.search.hits(text),
      chosen: (row) => this.isChosen(row), hit: (row) => this.search.current !== null && row.number === this.search.current,
    };
    this.view = new View(this.scroller, this.look, (how) => this.viewMoved(how));
    this.search = new Search(root, {
      source: () => this.source, view: this.view, go: (line) => this.goTo(line), book: (book) => this.read(book),
      errorLines: () => this.errors.lines,
      stop: () => this.follow(false), back: () => this.scroller.focus(),
    });
    this.errors = new Errors(root, {
      sources: () => this.found, drawn: () => this.view.schedule(), go: (rank, name, line) => this.show(rank, line, name),
    });
    this.following = true;
    this.intent = 0;
    this.seen = 0;
    this.said.total = 0;
    this.chosen = null;
    this.range = range(location.hash);
    this.states = new Map();
    this.found = [];
    this.bind();
    this.applyOptions();
    const query = new URL(location.href).searchParams;
    this.wanted = query.has("rank") ? Number(query.get("rank")) : null;
    this.wantedName = query.get("stream");
    this.fit();
    addEventListener("resize", () => this.fit());
    this.sync();
    this.lookAround();
    setInterval(() => this.say(), SAY_EVERY);
    setInterval(() => document.hidden || this.quiet() || this.lookAround(), LOOK_EVERY);
  }

  get status() { return this.streams().dataset.status; }

  // -- which stream ----------------------------------------------------------------------------------

  /** Look at the list of streams again: ranks have come, or changed their state. */
  sync() {
    this.found = [...this.streams().children].map((item) => ({ ...item.dataset, rank: Number(item.dataset.rank) }));
    this.look.started = Number(this.streams().dataset.started) || null;
    this.tabs.draw(this.found, this.chosen, this.states, Boolean(this.merged));
    const first = this.streams().dataset.first;
    const wanted = this.wanted ?? (first ? Number(first) : null);
    if (!this.chosen && this.found.length) {
      const ofRank = this.found.filter((one) => one.rank === wanted);
      const one = ofRank.find((each) => each.name === this.wantedName) ?? ofRank[0] ?? this.found[0];
      this.open(one, this.range?.[0] ?? null);
    } else this.showState();
  }

  /** The state of all streams, for tabs and counts: seldom, and only while it can change. */
  async lookAround() {
    if (!this.found.length) return;
    let answer;
    try {
      answer = await get(this.root.dataset.stateUrl);
    } catch {
      return;
    }
    this.states = new Map(answer.streams.map((state) => [state.id, state]));
    this.tabs.draw(this.found, this.chosen, this.states, Boolean(this.merged));
    const total = answer.streams.reduce((sum, state) => sum + state.errors, 0);
    this.errors.show(total);
    this.view.schedule();
  }

  /** Nothing will change any more. */
  quiet() {
    return over(this.status) && this.states.size && [...this.states.values()].every((state) => state.ended !== null);
  }

  /** All ranks as one log. */
  merge() {
    if (this.merged || this.found.length < 2) return;
    this.source?.close();
    this.search.leave();
    this.source = null;
    this.range = null;
    const live = () => !over(this.status) || !this.quiet();
    const merged = new Merged(this.root.dataset.mergedUrl, {
      live, collapse: options.collapse, changed: () => this.mergedChanged(merged),
    });
    this.merged = merged;
    this.solo = null;
    this.root.classList.add("is-merged");
    this.tabs.draw(this.found, this.chosen, this.states, true);
    this.view.reset(merged);
    this.setFollowing(!over(this.status));
    if (this.following) this.view.toEnd();
    this.showState();
  }

  mergedChanged(merged) {
    if (merged !== this.merged) return;
    if (this.following) this.view.toEnd();
    else this.view.schedule();
    this.showState();
  }

  leaveMerged() {
    this.merged?.close();
    this.merged = null;
    this.root.classList.remove("is-merged");
  }

  async soloRank(rank) {
    this.solo = this.solo === rank ? null : rank;
    const { merged } = this;
    await merged.only(this.solo === null ? "" : String(this.solo));
    if (merged !== this.merged) return;
    this.view.reset(merged);
    if (this.following) this.view.toEnd();
    this.tell(this.solo === null ? "All ranks" : `Only rank ${rank}; click its mark again for all`);
  }

  select(rank) {
    const one = this.found.find((candidate) => candidate.rank === rank);
    if (one && (this.merged || one.id !== this.chosen?.id)) this.open(one);
  }

  /** Show a line of a rank. */
  show(rank, line, name = null) {
    const ofRank = this.found.filter((one) => one.rank === rank);
    const one = ofRank.find((each) => each.name === name) ?? ofRank[0];
    if (!one) return;
    this.range = [line, line];
    if (this.merged || one.id !== this.chosen?.id) this.open(one, line);
    else this.goTo(line);
    this.remember();
  }

  async open(one, line = null) {
    this.source?.close();
    this.leaveMerged();
    if (this.chosen) this.range = line ? [line, line] : null;
    this.chosen = one;
    this.search.leave();
    this.root.dataset.rank = one.rank;
    for (const [name, query] of [["raw", ""], ["plain", "?plain=1"], ["gz", "?gz=1"]]) {
      this.part(`[data-log-${name}]`).href = `${one.url}/raw${query}`;
    }
    const source = new Source(one, () => this.changed(source));
    this.source = source;
    source.begun = performance.now();
    source.states = this.root.classList.contains("all-states");
    this.seen = 0;
    this.said.total = 0;
    this.tabs.draw(this.found, one, this.states);
    this.view.reset(source);
    this.setFollowing(line === null && !over(this.status));
    this.showState();
    await source.opened;
    if (source !== this.source) return;
    this.seen = source.total;
    this.said.total = source.total;
    if (line !== null) this.goTo(line);
    else if (source.ended === null && !over(this.status)) this.follow(true);
    else await this.begin(source);
  }

  /** Where a log that has ended opens: at the error that matters, or at its top. */
  async begin(source) {
    if (this.intent > source.begun) return;
    if (this.status !== "FAILED") return void this.view.toStart();
    const line = source.errors ? await Errors.first(source).catch(() => null) : null;
    // Whoever has begun to read by then is not moved.
    if (source !== this.source || this.intent > source.begun) return;
    if (line !== null) this.goTo(line);
    else this.view.toEnd();
  }

  read(book) {
    this.view.reset(book);
  }

  changed(source) {
    if (source !== this.source) return;
    if (this.following && !this.search.filtered) this.view.toEnd();
    else this.view.schedule();
    this.search.grown();
    this.showPill();
    this.showState();
  }

  // -- where the reader is ---------------------------------------------------------------------------

  viewMoved({ user, up, settled }) {
    if (user && up && this.following) this.follow(false);
    const usable = this.source && this.source.ended === null && !this.search.filtered;
    if (settled && usable && !this.following && this.intent > performance.now() - 2 * INTENT
        && this.view.reachesEnd && !this.selecting()) this.follow(true);
    if (this.view.reachesEnd && this.source) this.seen = this.source.total;
    this.showPill();
    if (this.source) this.errors.follow(this.source, this.states.get(this.chosen.id)?.errors ?? this.source.errors);
    this.search.drawMap();
  }

  setFollowing(on) {
    this.following = on;
    this.part("[data-log-follow]").setAttribute("aria-pressed", String(on));
  }

  follow(on) {
    if (on && this.search.filtered) this.search.leaveFilter();
    this.setFollowing(on);
    if (on) {
      this.seen = this.source?.total ?? 0;
      this.view.toEnd();
    } else {
      this.view.atEnd = false;
      this.seen = this.source?.total ?? 0;
    }
    this.showPill();
    this.showState();
  }

  goTo(line) {
    this.follow(false);
    if (this.search.filtered) this.search.leaveFilter();
    this.view.goTo(line);
    this.view.restyle();
  }

  toTop() {
    this.follow(false);
    this.view.toStart();
  }

  isChosen(row) {
    return this.range !== null && row.last >= this.range[0] && row.number <= this.range[1];
  }

  remember() {
    if (this.merged) return;
    history.replaceState(history.state, "", address({ ...this.chosen, attempt: this.attempt }, this.range));
  }

  choose(number, extend) {
    const from = extend && this.range ? this.range[0] : number;
    this.range = [Math.min(from, number), Math.max(from, number)];
    this.follow(false);
    this.remember();
    this.view.restyle();
  }

  /** The lines that a link from here should name. */
  here() {
    if (this.range) return this.range;
    const [first] = this.view.visible;
    return first ? [first.number, first.number] : null;
  }

  async copyLink() {
    const url = address({ ...this.chosen, attempt: this.attempt }, this.here());
    this.tell(await copy(url.href) ? "Link copied" : url.href);
  }

  async copyCommand() {
    const { rank, name } = this.chosen;
    const gpu = gpuOf(name);
    const attempts = this.part("[data-log-attempt]");
    const command = `mcli logs ${this.root.dataset.run}${rank ? ` --node ${rank}` : ""}${gpu === null ? "" : ` --gpu ${gpu}`}${attempts ? ` --resumption ${this.attempt}` : ""}`;
    this.tell(await copy(command) ? `Copied: ${command}` : command);
  }

  async nextError(step) {
    if (this.merged || !this.source) return this.tell("Errors are listed by rank: choose one");
    if (!this.source.errors && !this.states.get(this.chosen?.id)?.errors) return this.tell("There is no error in this log");
    const [row] = this.view.visible;
    const at = this.range && row && Math.abs(this.range[0] - row.number) < 200 ? await this.rowOf(this.range[0]) : row;
    const line = at ? await Errors.beside(this.source, at, step) : null;
    if (line === null) return this.tell(step > 0 ? "No error after this" : "No error before this");
    this.range = [line, line];
    this.remember();
    this.goTo(line);
  }

  async rowOf(number) {
    const page = this.source.page(this.source.pageOf(number));
    return page.rows[page.rowOf.get(number) ?? 0];
  }

  async firstError() {
    const best = [...this.found].map((one) => this.states.get(one.id)).find((state) => state?.errors && state.id === this.chosen.id);
    if (best && !this.merged) {
      const line = await Errors.first(this.source);
      if (line !== null) return this.show(this.chosen.rank, line, this.chosen.name);
    }
    const other = this.found.find((one) => this.states.get(one.id)?.errors);
    if (!other) return this.tell("There is no error");
    const line = await Errors.first(other);
    if (line !== null) this.show(other.rank, line, other.name);
  }

  async goToPlace(text) {
    if (this.merged) return this.goToMerged(text.trim());
    const plain = text.trim().replaceAll(",", "");
    if (/^L?\d+$/.test(plain)) {
      const line = Math.min(Number(plain.replace("L", "")), Math.max(1, this.source.total));
      this.range = [line, line];
      this.remember();
      return this.goTo(line);
    }
    const near = this.view.visible[0]?.time;
    const time = timeOf(text.trim(), { started: this.look.started, utc: options.times === "utc", near });
    if (Number.isNaN(time)) return this.tell(`“${text}” is neither a line nor a time`);
    const { first } = await get(`${this.source.url}/lines?time=${time}&n=1`);
    this.goTo(first);
  }

  async goToMerged(text) {
    const number = Number(text.replaceAll(",", ""));
    const time = timeOf(text, { started: this.look.started, utc: options.times === "utc", near: this.view.visible[0]?.time });
    if (Number.isNaN(number) && Number.isNaN(time)) return this.tell(`“${text}” is neither a line nor a time`);
    this.follow(false);
    this.view.goTo(Number.isNaN(number) ? await this.merged.positionAt(time) : number);
  }

  // -- what is said ----------------------------------------------------------------------------------

  showState() {
    if (this.merged) return this.showMergedState();
    const [kind, text, title] = describe(this.chosen && this.source, { following: this.following, status: this.status });
    this.stateLine.className = `log-state is-${kind}`;
    if (this.stateLine.textContent !== text) this.stateLine.textContent = text;
    this.stateLine.title = title;
    const empty = !this.source?.total && !this.search.filtered;
    this.emptyLine.hidden = !empty;
    if (empty) this.emptyLine.textContent = whyEmpty(this.chosen && this.source, this.status);
  }

  showMergedState() {
    const count = this.merged.total.toLocaleString("en");
    const live = !over(this.status);
    this.stateLine.className = `log-state is-${live ? "live" : "complete"}`;
    this.stateLine.textContent = `${live ? "Live" : "Ended"} · ${count} lines of ${this.solo === null ? "all ranks" : `rank ${this.solo}`}, by time`;
    this.stateLine.title = "";
    this.emptyLine.hidden = this.merged.total > 0;
    this.emptyLine.textContent = "No output yet.";
  }

  showPill() {
    if (this.offered) return;
    const unseen = this.following || !this.source ? 0 : this.source.total - this.seen;
    this.pill.hidden = unseen <= 0;
    const text = `${unseen.toLocaleString("en")} new line${unseen === 1 ? "" : "s"} ↓`;
    if (!this.pill.hidden && this.pill.textContent !== text) this.pill.textContent = text;
  }

  /** For screen readers: what happened since the last time, seldom enough to be listened to. */
  say() {
    const total = this.source?.total ?? 0;
    const added = total - this.said.total;
    if (added > 0 && !document.hidden) {
      this.said.textContent = `Follow ${this.following ? "on" : "off"}, ${added.toLocaleString("en")} new log lines, `
        + `${this.errors.total.toLocaleString("en")} errors`;
    }
    this.said.total = total;
  }

  /** Say something short, to eyes and ears. */
  tell(text) {
    this.said.textContent = text;
    let note = this.part(".log-note");
    if (!note) {
      note = document.createElement("div");
      note.className = "log-note";
      this.part(".log-screen").append(note);
    }
    note.textContent = text;
    note.hidden = false;
    clearTimeout(this.noteTimer);
    this.noteTimer = setTimeout(() => { note.hidden = true; }, 4000);
  }

  /** Put something to the reader that is not about lines; it stays until the page goes. */
  offer(text, action) {
    this.offered = true;
    this.pill.hidden = false;
    this.pill.textContent = text;
    this.pill.onclick = action;
  }

  // -- how it looks ----------------------------------------------------------------------------------

  /** Fill the window below where the pane begins. */
  fit() {
    if (this.root.classList.contains("is-full")) {
      this.scroller.style.height = "";
      return;
    }
    const top = this.scroller.getBoundingClientRect().top + scrollY;
    this.scroller.style.height = `${Math.max(360, innerHeight - top - 24)}px`;
  }

  /** The pane has become visible: what is at the bottom now is not what was when it was hidden. */
  shown() {
    this.fit();
    this.view.measured = null;
    if (this.following) this.view.toEnd();
    else this.view.schedule();
  }

  fullScreen(on = !this.root.classList.contains("is-full")) {
    this.root.classList.toggle("is-full", on);
    document.documentElement.classList.toggle("log-is-full", on);
    this.part("[data-log-full]").setAttribute("aria-pressed", String(on));
    this.shown();
    this.scroller.focus();
  }

  set(change) {
    choose(change);
    this.applyOptions();
  }

  applyOptions() {
    const { times, wrap } = options;
    this.part("[data-log-wrap]").setAttribute("aria-pressed", String(wrap));
    this.part("[data-log-collapse]").setAttribute("aria-pressed", String(options.collapse));
    this.part("[data-log-times]").value = times;
    this.part("[data-log-keys]").checked = options.keys;
    this.root.classList.toggle("no-wrap", !wrap);
    this.root.dataset.times = times;
    this.look.times = times;
    this.view.restyle();
    if (this.following) this.view.toEnd();
  }

  showStates(on = !this.root.classList.contains("all-states")) {
    this.root.classList.toggle("all-states", on);
    this.part("[data-log-states]").setAttribute("aria-pressed", String(on));
    this.source?.setStates(on);
    this.view.restyle();
  }

  // -- what the reader does --------------------------------------------------------------------------

  selecting() {
    const selection = getSelection();
    return !selection.isCollapsed && this.view.root.contains(selection.anchorNode);
  }

  bind() {
    const { scroller, part } = this;
    const mean = () => { this.intent = performance.now(); };
    scroller.addEventListener("keydown", mean);
    for (const kind of ["wheel", "touchmove", "pointerdown"]) scroller.addEventListener(kind, mean, { passive: true });
    document.addEventListener("selectionchange", () => this.following && this.selecting() && this.follow(false));
    scroller.addEventListener("click", (event) => this.clicked(event));
    this.pill.onclick = () => { this.follow(true); scroller.focus(); };
    const on = (name, action, kind = "click") => part(`[data-log-${name}]`)?.addEventListener(kind, action);
    on("follow", () => this.follow(!this.following));
    on("wrap", () => this.set({ wrap: !options.wrap }));
    on("collapse", () => {
      this.set({ collapse: !options.collapse });
      this.merged?.setCollapse(options.collapse);
    });
    on("states", () => this.showStates());
    on("full", () => this.fullScreen());
    on("first-error", () => this.firstError());
    on("times", (event) => this.set({ times: event.target.value }), "change");
    on("keys", (event) => choose({ keys: event.target.checked }), "change");
    on("help", () => this.help());
    on("attempt", (event) => {
      const url = new URL(location.pathname, location.href);
      url.searchParams.set("attempt", event.target.value);
      if (this.chosen) url.searchParams.set("rank", this.chosen.rank);
      location.assign(url);
    }, "change");
    part("[data-log-copy='link']").addEventListener("click", () => this.copyLink());
    part("[data-log-copy='mcli']").addEventListener("click", () => this.copyCommand());
    for (const item of this.root.querySelectorAll(".log-menu .menu-in > *")) {
      item.addEventListener("click", () => { part(".log-menu").open = false; });
    }
    const sheet = part("[data-log-goto]");
    sheet.querySelector("form").addEventListener("submit", () => this.goToPlace(sheet.querySelector("input").value));
    for (const dialog of this.root.querySelectorAll("dialog")) {
      dialog.querySelector("[data-log-close]").addEventListener("click", () => dialog.close());
      dialog.addEventListener("close", () => scroller.focus());
    }
    addEventListener("hashchange", () => {
      const lines = range(location.hash);
      if (!lines || !this.source) return;
      this.range = lines;
      this.goTo(lines[0]);
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && this.root.classList.contains("is-full")
          && !event.target.closest("dialog")) this.fullScreen(false);
    });
    // Colours of the log's own choosing are made readable on the theme's background.
    new MutationObserver(() => this.view.restyle()).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
    this.keys();
  }

  clicked(event) {
    const mark = event.target.closest("[data-solo]");
    if (mark && this.merged) return void this.soloRank(Number(mark.dataset.solo));
    const number = event.target.closest(".log-no");
    if (number) {
      event.preventDefault();
      const { row } = number.parentNode;
      // From all ranks to the one: what its line stands between.
      if (this.merged) return this.show(row.rank, row.number, row.stream);
      this.choose(number.parentNode.row.number, event.shiftKey);
      scrollTo({ top: scrollY });
      return;
    }
    const more = event.target.closest("[data-more]");
    if (more) {
      more.disabled = true;
      this.follow(false);
      this.source.more(Number(more.dataset.more)).catch(() => this.tell("Could not load more of it; try again"));
    }
  }

  help() {
    drawKeys(this.part(".log-keys"));
    this.part("[data-log-sheet]").showModal();
  }

  keys() {
    const { view } = this;
    const sheet = this.part("[data-log-goto]");
    const by = (lines) => () => {
      if (lines < 0) this.follow(false);
      view.moveLines(lines);
    };
    const window = () => Math.max(1, Math.floor(view.height / view.lineHeight) - 2);
    const moves = {
      ArrowDown: by(1), ArrowUp: by(-1), j: by(1), k: by(-1),
      PageDown: () => by(window())(), " ": () => by(window())(), PageUp: () => by(-window())(),
      Home: () => this.toTop(), "g g": () => this.toTop(), End: () => this.follow(true), G: () => this.follow(true),
    };
    bindKeys(this.scroller, {
      ...moves,
      rank: (rank) => this.select(rank),
      f: () => this.follow(!this.following),
      w: () => this.set({ wrap: !options.wrap }),
      m: () => (this.merged ? this.open(this.chosen) : this.merge()),
      t: () => this.set({ times: TIMES[(TIMES.indexOf(options.times) + 1) % TIMES.length] }),
      o: () => this.showStates(),
      d: () => this.part("[data-log-raw]").click(),
      y: () => this.copyLink(),
      F: () => this.fullScreen(),
      "/": () => this.search.focus(),
      n: () => this.search.step(1),
      N: () => this.search.step(-1),
      "[": () => this.nextError(-1),
      "]": () => this.nextError(1),
      ":": () => {
        sheet.querySelector("input").value = "";
        sheet.showModal();
      },
      "?": () => this.help(),
    }, () => options.keys);
  }
}
