// Rows as elements. Text goes in as text, colours as classes or through the CSSOM; never as HTML.
import { PLAIN } from "./ansi.js";
import { titleOf } from "./place.js";
import { exact } from "../times.js";

const RANK_COLOURS = 8;

/**
 * The element of a row. `look`: {times, started, hits(text) → [[from, to], …], chosen(row), hit(row) → bool}. Numbers, times
 * and ranks are drawn by the style sheet from attributes: what is copied is the text.
 */
export function element(row, look) {
  const line = document.createElement("div");
  line.className = "log-line";
  line.dataset.n = row.number;
  const number = document.createElement("a");
  number.className = "log-no";
  number.href = `#L${row.number}`;
  number.tabIndex = -1;
  number.draggable = false;
  number.dataset.no = row.sub ? "" : row.number.toLocaleString("en");
  number.setAttribute("aria-label", `Line ${row.number}`);
  line.append(number);
  if (row.rank !== undefined) line.append(rankMark(row));
  if (look.times !== "off") {
    const time = document.createElement("span");
    time.className = "log-time";
    time.dataset.time = clock(row.time, look);
    line.append(time);
  }
  const text = document.createElement("span");
  text.className = "log-text";
  fill(text, row, look);
  line.append(text);
  if (row.loading) line.classList.add("is-loading");
  if (row.source === "stderr") line.classList.add("is-stderr");
  if (row.error) line.classList.add("is-error");
  if (look.chosen(row)) line.classList.add("is-chosen");
  if (look.hit(row)) line.classList.add("is-hit");
  return line;
}

/** What would make `element` different; two rows with the same one need not be drawn twice. */
export function signature(row) {
  if (row.loading) return "…";
  let text = `${row.rank ?? ""}|${row.number}|${row.time ?? ""}|${row.more}|${row.times ?? ""}`;
  for (const span of row.spans) text += `\u0001${styleKey(span.style)}\u0002${span.text}`;
  return text;
}

const keys = new WeakMap();

function styleKey(style) {
  let key = keys.get(style);
  if (key === undefined) {
    key = style === PLAIN ? "" : Object.values(style).join(",");
    keys.set(style, key);
  }
  return key;
}

function rankMark(row) {
  const mark = document.createElement("span");
  mark.dataset.solo = row.rank;
  mark.className = `log-rank rank-${row.rank % RANK_COLOURS}`;
  mark.dataset.rank = row.label;
  mark.title = `${titleOf({ rank: row.rank, name: row.stream }).replace("rank", "Rank")}: click to see the rank alone, or all again`;
  return mark;
}

function fill(target, row, look) {
  const spans = row.spans;
  const text = spans.length === 1 ? spans[0].text : spans.map((span) => span.text).join("");
  const hits = text ? look.hits(text) : [];
  const nodes = [];
  let at = 0;
  for (const span of spans) {
    for (const [piece, hit] of pieces(span.text, at, hits)) nodes.push(hit ? marked(piece, span.style) : plain(piece, span.style));
    at += span.text.length;
  }
  if (row.times > 1) {
    const times = document.createElement("span");
    times.className = "log-times";
    times.dataset.times = `×${row.times}`;
    times.title = `${row.times} ranks wrote this line: ${[...row.ranks].join(", ")}`;
    nodes.push(times);
  }
  if (row.more > 0 && !row.sub) {
    const more = document.createElement("button");
    more.type = "button";
    more.className = "log-more";
    more.dataset.more = row.number;
    more.textContent = `Show more (${row.more.toLocaleString("en")} bytes)`;
    nodes.push(" ", more);
  }
  target.replaceChildren(...nodes);
}

/** A span's text cut where hits begin and end: [text, whether it is one]. */
function* pieces(text, at, hits) {
  let done = 0;
  for (const [from, to] of hits) {
    const begin = Math.max(done, from - at);
    const end = Math.min(text.length, to - at);
    if (end <= begin) continue;
    if (begin > done) yield [text.slice(done, begin), false];
    yield [text.slice(begin, end), true];
    done = end;
  }
  if (done < text.length) yield [text.slice(done), false];
}

function plain(text, style) {
  return style === PLAIN ? document.createTextNode(text) : styled(text, style);
}

function marked(text, style) {
  const mark = document.createElement("mark");
  mark.append(style.link ? styled(text, style) : document.createTextNode(text));
  return mark;
}

function styled(text, style) {
  const element = document.createElement(style.link ? "a" : "span");
  if (style.link) {
    element.href = style.link;
    element.target = "_blank";
    element.rel = "noopener noreferrer nofollow";
  }
  element.textContent = text;
  const names = ["bold", "dim", "italic", "underline", "strike"].filter((name) => style[name]);
  const { fg, bg } = style.inverse ? { fg: style.bg, bg: style.fg } : style;
  if (style.inverse && bg === null) names.push("is-inverse");
  else if (bg !== null) {
    // A background is a terminal's, the same in both themes: text on it is black or white, as it can be read.
    names.push(bright(bg) ? "on-light" : "on-dark");
  } else if (typeof fg === "number") names.push(`fg-${fg}`);
  else if (fg) element.style.color = readable(fg, document.documentElement.dataset.bsTheme === "dark");
  if (typeof bg === "number") names.push(`bg-${bg}`);
  else if (bg) element.style.backgroundColor = bg;
  if (names.length) element.className = names.join(" ");
  return element;
}

function bright(colour) {
  if (typeof colour === "number") return [2, 3, 6, 7, 10, 11, 14, 15].includes(colour);
  return luminance(channels(colour)) > 0.18;
}

const channels = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const BEHIND = { light: luminance(channels("#f0f1f3")), dark: luminance(channels("#1c2027")) };
const ENOUGH = 4.5;
const made = new Map();

/** A colour of the log's own choosing, as far darkened or lightened as it takes to be read on the theme's background. */
export function readable(colour, dark) {
  const key = `${colour}${dark}`;
  let found = made.get(key);
  if (found) return found;
  const behind = dark ? BEHIND.dark : BEHIND.light;
  const from = channels(colour);
  for (let share = 0; share <= 1; share += 0.05) {
    const mixed = from.map((value) => Math.round(dark ? value + (255 - value) * share : value * (1 - share)));
    const [a, b] = [luminance(mixed), behind].sort((x, y) => y - x);
    found = `rgb(${mixed.join(" ")})`;
    if ((a + 0.05) / (b + 0.05) >= ENOUGH) break;
  }
  if (made.size > 5000) made.clear();
  made.set(key, found);
  return found;
}

/** off, relative (to the attempt's start), local or utc. */
export function clock(time, { times, started }) {
  if (!time) return "";
  if (times === "utc") return new Date(time * 1000).toISOString().slice(11, 23);
  if (times === "local") return exact(time * 1000).slice(11);
  const since = time - (started ?? time);
  const ms = Math.round(Math.abs(since) * 1000);
  const pad = (value, size) => String(value).padStart(size, "0");
  return `${since < 0 ? "−" : "+"}${pad(Math.floor(ms / 3_600_000), 2)}:${pad(Math.floor(ms / 60_000) % 60, 2)}:`
    + `${pad(Math.floor(ms / 1000) % 60, 2)}.${pad(ms % 1000, 3)}`;
}
