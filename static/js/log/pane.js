// The log pane of the run page: which stream, how it is shown, and what is said about it.
import { LineReader, Marks } from "./lines.js";
import { Screen } from "./screen.js";
import { LogStream, fetchMarks, fetchRange } from "./stream.js";

const TAIL = 256 * 1024;
const KEPT = "runyard:log";
const SAY_EVERY = 10_000;

const DOTS = { waiting: "waiting", starting: "starting", running: "running", exited: "ended", done: "exit code 0",
  failed: "failed", stopped: "stopped" };

export class LogPane {
  /** `streams()` is the list element that says which streams there are; it may be replaced at any time. */
  constructor(root, streams) {
    this.root = root;
    this.streams = streams;
    const part = (selector) => root.querySelector(selector);
    this.tabs = part(".log-ranks");
    this.scroller = part(".log-scroll");
    this.earlier = part(".log-earlier");
    this.pill = part(".log-pill");
    this.stateLine = part(".log-state");
    this.emptyLine = part(".log-empty");
    this.raw = part("[data-log-raw]");
    this.followButton = part("[data-log-follow]");
    this.wrapButton = part("[data-log-wrap]");
    this.timesSelect = part("[data-log-times]");
    this.said = document.createElement("span");
    this.said.className = "visually-hidden";
    this.said.setAttribute("role", "status");
    root.append(this.said);
    this.screen = new Screen(part(".log-lines"), this.scroller, (added) => this.drawn(added));
    this.following = true;
    this.unseen = 0;
    this.unsaid = 0;
    this.chosen = null;
    this.bytes = 0;
    this.options = { times: "off", wrap: true, ...read() };
    this.applyOptions();
    this.bind();
    const wanted = new URL(location.href).searchParams.get("rank");
    this.wanted = wanted === null ? null : Number(wanted);
    this.fit();
    addEventListener("resize", () => this.fit());
    this.sync();
    setInterval(() => this.say(), SAY_EVERY);
  }

  /** Look at the list of streams again: ranks have come, or changed their state. */
  sync() {
    const found = [...this.streams().children].map((item) => ({ ...item.dataset, rank: Number(item.dataset.rank) }));
    this.found = found;
    this.drawTabs();
    const first = this.streams().dataset.first;
    const wanted = this.wanted ?? (first ? Number(first) : null);
    if (!this.chosen && found.length) this.open(found.find((one) => one.rank === wanted) ?? found[0]);
    else this.showState();
  }

  select(rank) {
    const one = this.found.find((candidate) => candidate.rank === rank);
    if (one && one.id !== this.chosen?.id) this.open(one);
  }

  open(one) {
    this.stream?.close();
    this.chosen = one;
    this.marks = new Marks();
    this.screen.reset(this.marks);
    this.screen.times = this.options.times;
    this.reader = null;
    this.bytes = 0;
    this.end = null;
    this.link = "connecting";
    this.unseen = 0;
    this.raw.href = `${one.url}/raw`;
    this.raw.hidden = false;
    this.follow(true);
    this.drawTabs();
    this.stream = new LogStream({ ...one, from: -TAIL }, {
      begin: ({ from, started }) => {
        this.bytes = from;
        this.screen.started = started;
        this.reader = new LineReader((line) => this.screen.add(line), { midway: from > 0 });
        this.start = from;
      },
      marks: (marks) => this.marks.add(marks),
      bytes: (offset, data) => {
        this.bytes = offset + data.length;
        this.reader.push(offset, data);
        this.screen.setCurrent(this.reader.empty ? null : this.reader.current);
      },
      end: (end) => { this.end = end; this.showState(); },
      state: (link) => { this.link = link; this.showState(); },
    });
    this.showState();
  }

  // -- what is drawn ---------------------------------------------------------------------------------

  drawn(added) {
    this.earlier.hidden = !(this.screen.first > 0);
    if (this.following) this.toBottom();
    else if (added) {
      this.unseen += added;
      this.showPill();
    }
    this.unsaid += added;
    this.showState();
  }

  toBottom() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Fill the window below where the pane begins. */
  fit() {
    const top = this.scroller.getBoundingClientRect().top + scrollY;
    this.scroller.style.height = `${Math.max(320, innerHeight - top - 24)}px`;
  }

  /** The pane has become visible: what is at the bottom now is not what was when it was hidden. */
  shown() {
    this.fit();
    if (this.following) this.toBottom();
  }

  follow(on) {
    this.following = on;
    this.screen.held = !on;
    this.followButton.setAttribute("aria-pressed", String(on));
    if (on) {
      this.unseen = 0;
      this.toBottom();
    }
    this.showPill();
  }

  showPill() {
    if (this.offered) return;
    this.pill.hidden = this.following || !this.unseen;
    this.pill.textContent = `${this.unseen.toLocaleString("en")} new line${this.unseen === 1 ? "" : "s"} ↓`;
  }

  async loadEarlier() {
    const { chosen, screen } = this;
    const to = screen.first;
    this.earlier.disabled = true;
    this.follow(false);
    try {
      const from = Math.max(0, to - TAIL);
      const [piece, marks] = await Promise.all([fetchRange(chosen.url, from, to), fetchMarks(chosen.url, from, to)]);
      if (chosen !== this.chosen || screen.first !== to) return;
      this.marks.add(marks);
      const lines = [];
      const reader = new LineReader((line) => lines.push(line), { midway: from > 0 });
      reader.push(piece.offset, piece.data);
      if (!reader.empty) lines.push(reader.current);
      screen.prepend(lines);
      this.earlier.hidden = screen.first <= 0;
    } catch {
      this.earlier.textContent = "Could not load; try again";
    } finally {
      this.earlier.disabled = false;
    }
  }

  // -- what is said ----------------------------------------------------------------------------------

  showState() {
    const [kind, text, title] = this.describe();
    this.stateLine.className = `log-state is-${kind}`;
    if (this.stateLine.textContent !== text) this.stateLine.textContent = text;
    this.stateLine.title = title ?? "";
    const empty = this.bytes === 0;
    this.emptyLine.hidden = !empty;
    if (empty) this.emptyLine.textContent = this.whyEmpty();
  }

  describe() {
    const size = `${this.bytes.toLocaleString("en")} bytes`;
    if (!this.chosen) return ["waiting", "Waiting"];
    if (this.end) {
      const { total, sha256, reason } = this.end;
      const stored = `${total.toLocaleString("en")} bytes`;
      if (/^(|complete|ended|end)$/i.test(reason)) {
        return ["complete", `Complete · ${stored}`, sha256 ? `sha256 ${sha256}` : ""];
      }
      return ["incomplete", `Incomplete (${reason}) · ${stored} are safe`, sha256 ? `sha256 ${sha256}` : ""];
    }
    if (this.link === "gone") return ["incomplete", "This log is not there any more"];
    if (this.link === "connecting") return ["waiting", "Connecting"];
    if (this.link === "reconnecting") return ["waiting", `Reconnecting · ${size}`];
    if (this.link === "polling") return ["live", `Looking every 2 s · ${size}`];
    if (this.runEnded()) return ["waiting", `Waiting for the log's end · ${size} are safe`];
    return ["live", this.bytes ? `Live · ${size}` : "Live"];
  }

  whyEmpty() {
    if (this.end) return "Nothing was written.";
    const status = document.getElementById("run-live").dataset.status;
    if (this.chosen) return "Waiting for the first output.";
    if (status === "PENDING" || status === "QUEUED") return "The log begins when the run is given its nodes.";
    return this.runEnded() ? "The run never started: there is no log." : "Waiting for the node.";
  }

  runEnded() {
    return ["COMPLETED", "STOPPED", "FAILED"].includes(document.getElementById("run-live").dataset.status);
  }

  /** For screen readers: what happened since the last time, seldom enough to be listened to. */
  say() {
    if (this.unsaid && !document.hidden) {
      this.said.textContent = `${this.unsaid.toLocaleString("en")} new log lines${this.following ? ", follow on" : ""}`;
    }
    this.unsaid = 0;
  }

  /** Put something to the reader that is not about lines; it stays until the page goes. */
  offer(text, action) {
    this.offered = true;
    this.pill.hidden = false;
    this.pill.textContent = text;
    this.pill.onclick = action;
  }

  // -- ranks -----------------------------------------------------------------------------------------

  drawTabs() {
    const several = this.found.length > 1;
    this.tabs.hidden = !several;
    if (!several) return;
    const key = JSON.stringify([this.found.map(({ id, state }) => [id, state]), this.chosen?.id]);
    if (key === this.drawnTabs) return;
    this.drawnTabs = key;
    const focused = this.tabs.contains(document.activeElement);
    this.tabs.replaceChildren(...this.found.map((one) => this.tab(one)));
    if (focused) this.tabs.querySelector('[aria-selected="true"]')?.focus();
  }

  tab(one) {
    const selected = one.id === this.chosen?.id;
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.id = `rank-${one.rank}-${one.name}`;
    tab.tabIndex = selected ? 0 : -1;
    tab.setAttribute("aria-selected", String(selected));
    tab.setAttribute("aria-controls", "log-scroll");
    tab.title = `Rank ${one.rank}: ${DOTS[one.state] ?? one.state}`;
    const dot = document.createElement("span");
    dot.className = `dot dot-${one.state}`;
    const state = document.createElement("span");
    state.className = "visually-hidden";
    state.textContent = `, ${DOTS[one.state] ?? one.state}`;
    const name = one.name === "MAIN" ? `Rank ${one.rank}` : `Rank ${one.rank} ${one.name.toLowerCase()}`;
    tab.append(dot, name, state);
    tab.addEventListener("click", () => selected || this.open(one));
    return tab;
  }

  // -- what the reader does --------------------------------------------------------------------------

  bind() {
    const { scroller } = this;
    let intent = 0;
    let dragging = false;
    let top = 0;
    const mean = () => { intent = performance.now(); };
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && mean(), { passive: true });
    scroller.addEventListener("touchmove", mean, { passive: true });
    scroller.addEventListener("pointerdown", (event) => { dragging = event.target === scroller; });
    addEventListener("pointerup", () => { dragging = false; });
    scroller.addEventListener("scroll", () => {
      // Only the reader's own move up stops following: lines dropped at the top move the page as well.
      const up = scroller.scrollTop < top - 1 && (dragging || performance.now() - intent < 1000);
      top = scroller.scrollTop;
      const bottom = scroller.scrollHeight - scroller.clientHeight - top < 4;
      if (this.following && up) this.follow(false);
      else if (!this.following && bottom && !this.selecting()) this.follow(true);
    }, { passive: true });
    document.addEventListener("selectionchange", () => this.following && this.selecting() && this.follow(false));
    scroller.addEventListener("keydown", (event) => {
      if (["ArrowUp", "PageUp", "Home"].includes(event.key)) mean();
      this.key(event);
    });
    this.tabs.addEventListener("keydown", (event) => this.arrow(event));
    this.pill.onclick = () => this.follow(true);
    this.earlier.addEventListener("click", () => this.loadEarlier());
    this.followButton.addEventListener("click", () => this.follow(!this.following));
    this.wrapButton.addEventListener("click", () => this.set({ wrap: !this.options.wrap }));
    this.timesSelect.addEventListener("change", () => this.set({ times: this.timesSelect.value }));
    new ResizeObserver(() => this.following && this.toBottom()).observe(scroller);
  }

  selecting() {
    const selection = getSelection();
    return !selection.isCollapsed && this.screen.root.contains(selection.anchorNode);
  }

  /** Single keys, only while the log has the focus. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const times = ["off", "relative", "local", "utc"];
    const actions = {
      f: () => this.follow(!this.following),
      w: () => this.set({ wrap: !this.options.wrap }),
      t: () => this.set({ times: times[(times.indexOf(this.options.times) + 1) % 4] }),
      d: () => this.raw.click(),
      G: () => this.follow(true),
      End: () => this.follow(true),
    };
    const action = actions[event.key] ?? (/^[1-9]$/.test(event.key) ? () => this.select(Number(event.key) - 1) : null);
    if (!action) return;
    event.preventDefault();
    action();
  }

  arrow(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = this.found.findIndex((one) => one.id === this.chosen?.id);
    this.open(this.found[(at + step + this.found.length) % this.found.length]);
    this.tabs.querySelector('[aria-selected="true"]')?.focus();
  }

  set(change) {
    this.options = { ...this.options, ...change };
    try { localStorage.setItem(KEPT, JSON.stringify(this.options)); } catch { /* lasts for this page */ }
    this.applyOptions();
  }

  applyOptions() {
    const { times, wrap } = this.options;
    this.wrapButton.setAttribute("aria-pressed", String(wrap));
    this.timesSelect.value = times;
    this.root.classList.toggle("no-wrap", !wrap);
    this.root.dataset.times = times;
    if (this.screen.marks) this.screen.setTimes(times);
    else this.screen.times = times;
    if (this.following) this.toBottom();
  }
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}
