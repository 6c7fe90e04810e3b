// <time> elements that go on: data-ago "4m ago", data-elapsed counts, data-clock in the reader's time zone.

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];

/** `3d 4h`, `2h 5m`, `4m 10s`, `12s`: two units at the most, as the server's `duration` filter. */
export function duration(seconds) {
  let whole = Math.floor(Math.max(0, seconds));
  const words = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(whole / size);
    whole %= size;
    if (count || words.length) words.push(`${count}${unit}`);
  }
  return words.slice(0, 2).filter((word) => !word.startsWith("0")).join(" ") || "0s";
}

/** The console's clock, in ms, as far as a page knows it: the reader's may be wrong. */
export const skew = { ms: 0 };
export const now = () => Date.now() + skew.ms;

function ago(seconds) {
  if (Math.abs(seconds) < 5) return "just now";
  const text = duration(Math.abs(seconds)).split(" ")[0];
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

export function exact(ms) {
  const date = new Date(ms);
  const pad = (value, size = 2) => String(value).padStart(size, "0");
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} `
    + `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

export function refresh(root = document) {
  for (const time of root.querySelectorAll("time[data-ago], time[data-elapsed], time[data-clock]")) {
    const ms = Date.parse(time.dateTime);
    const seconds = (now() - ms) / 1000;
    let text;
    if ("ago" in time.dataset) text = ago(seconds);
    else if ("elapsed" in time.dataset) text = duration(seconds);
    else text = exact(ms).slice(0, 19);
    if (time.textContent !== text) time.textContent = text;
    if (!time.dataset.seen) {
      time.dataset.seen = "1";
      time.title = `${exact(ms)} (your time)\n${time.title}`;
    }
  }
}

export function start() {
  refresh();
  setInterval(() => document.hidden || refresh(), 1000);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  document.addEventListener("htmx:afterSwap", () => refresh());
}
