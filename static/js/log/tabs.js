// A tab for each stream of an attempt: its state, and how long it has been silent.
import { duration, now } from "../times.js";

const DOTS = { waiting: "waiting", starting: "starting", running: "running", exited: "ended", done: "exit code 0",
  failed: "failed", stopped: "stopped" };
const SILENT = 10;

export class Tabs {
  constructor(root, open) {
    this.root = root;
    this.open = open;
    root.addEventListener("keydown", (event) => this.arrow(event));
  }

  draw(found, chosen, states) {
    this.found = found;
    this.chosen = chosen;
    this.root.hidden = found.length < 2;
    if (found.length < 2) return;
    const silent = (one) => quietFor(one, states.get(one.id));
    const key = JSON.stringify([found.map((one) => [one.id, one.state, silent(one)]), chosen?.id]);
    if (key === this.drawn) return;
    this.drawn = key;
    const focused = this.root.contains(document.activeElement);
    this.root.replaceChildren(...found.map((one) => this.tab(one, silent(one))));
    const selected = this.root.querySelector('[aria-selected="true"]');
    if (focused) selected?.focus();
    if (selected && this.shown !== chosen?.id) {
      this.shown = chosen.id;
      this.root.scrollLeft = selected.offsetLeft - this.root.offsetLeft - 40;
    }
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
    tab.title = `Rank ${one.rank}: ${DOTS[one.state] ?? one.state}${silent ? `, last output ${silent} ago` : ""}`;
    const dot = document.createElement("span");
    dot.className = `dot dot-${one.state}`;
    const state = document.createElement("span");
    state.className = "visually-hidden";
    state.textContent = `, ${DOTS[one.state] ?? one.state}`;
    const name = one.name === "MAIN" ? `Rank ${one.rank}` : `Rank ${one.rank} ${one.name.toLowerCase()}`;
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
    const at = this.found.findIndex((one) => one.id === this.chosen?.id);
    this.open(this.found[(at + step + this.found.length) % this.found.length]);
    this.root.querySelector('[aria-selected="true"]')?.focus();
  }
}

/** "2m" for a running rank that has been silent; "" for one that has just written, or has ended. */
function quietFor(one, state) {
  if (!state?.last_output_at || state.ended !== null || one.state !== "running") return "";
  const seconds = now() / 1000 - state.last_output_at;
  return seconds < SILENT ? "" : duration(seconds).split(" ")[0];
}
