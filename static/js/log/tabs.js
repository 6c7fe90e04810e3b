// A tab for each stream of an attempt: its state, and how long it has been silent.
import { duration, now } from "../times.js";
import { titleOf } from "./place.js";

const DOTS = { waiting: "waiting", starting: "starting", running: "running", exited: "ended", done: "exit code 0",
  failed: "failed", stopped: "stopped" };
const SILENT = 10;

export class Tabs {
  /** `open(stream)` shows one, `merge()` all. */
  constructor(root, open, merge) {
    this.root = root;
    this.open = open;
    this.merge = merge;
    root.addEventListener("keydown", (event) => this.arrow(event));
  }

  draw(found, chosen, states, merged = false) {
    this.found = found;
    this.chosen = merged ? null : chosen;
    this.root.hidden = found.length < 2;
    if (found.length < 2) return;
    const silent = (one) => quietFor(one, states.get(one.id));
    const key = JSON.stringify([found.map((one) => [one.id, one.state, silent(one)]), chosen?.id, merged]);
    if (key === this.drawn) return;
    this.drawn = key;
    const focused = this.root.contains(document.activeElement);
    this.root.replaceChildren(this.all(merged), ...found.map((one) => this.tab(one, silent(one))));
    const selected = this.root.querySelector('[aria-selected="true"]');
    if (focused) selected?.focus();
    if (selected && this.shown !== chosen?.id) {
      this.shown = chosen.id;
      this.root.scrollLeft = selected.offsetLeft - this.root.offsetLeft - 40;
    }
  }

  all(selected) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.tabIndex = selected ? 0 : -1;
    tab.setAttribute("aria-selected", String(selected));
    tab.setAttribute("aria-controls", "log-scroll");
    tab.title = "All ranks as one log, by time (m)";
    tab.textContent = "All ranks";
    tab.addEventListener("click", () => selected || this.merge());
    return tab;
  }

  tab(one, silent) {
    const selected = one.id === this.chosen?.id;
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.id = `rank-${one.rank}-${one.name}`;
    tab.tabIndex = selected ? 0 : -1;
    tab.setAttribute("aria-selected", String(selected));
    tab.setAttribute("aria-controls", "log-scroll");
    const name = titleOf(one).replace("rank", "Rank");
    tab.title = `${name}: ${DOTS[one.state] ?? one.state}${silent ? `, last output ${silent} ago` : ""}`;
    const dot = document.createElement("span");
    dot.className = `dot dot-${one.state}`;
    const state = document.createElement("span");
    state.className = "visually-hidden";
    state.textContent = `, ${DOTS[one.state] ?? one.state}`;
    tab.append(dot, name, state);
    if (silent) {
      const heart = document.createElement("span");
      heart.className = "log-silent num";
      heart.textContent = silent;
      tab.append(heart);
    }
    tab.addEventListener("click", () => selected || this.open(one));
    return tab;
  }

  arrow(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const tabs = [null, ...this.found];
    const at = tabs.findIndex((one) => one?.id === this.chosen?.id);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    if (next) this.open(next);
    else this.merge();
    this.root.querySelector('[aria-selected="true"]')?.focus();
  }
}

/** "2m" for a running rank that has been silent; "" for one that has just written, or has ended. */
function quietFor(one, state) {
  if (!state?.last_output_at || state.ended !== null || one.state !== "running") return "";
  const seconds = now() / 1000 - state.last_output_at;
  return seconds < SILENT ? "" : duration(seconds).split(" ")[0];
}
