// The run list: rows change in place. On the first page new runs come in on top while the reader is there too;
// else a pill counts them.
import { showState, throttled, watchChanges } from "./live.js";
import { refresh as refreshTimes } from "./times.js";

const pill = document.getElementById("new-runs");
const section = () => document.getElementById("runs");
const rowsOf = (root) => [...root.querySelectorAll("tbody > tr")];

async function fetchSection() {
  const response = await fetch(location.href, {
    headers: { "HX-Request": "true", "HX-Target": "runs", Accept: "text/html" },
    credentials: "same-origin",
  });
  if (response.headers.get("HX-Refresh")) location.reload();
  if (!response.ok) return null;
  return new DOMParser().parseFromString(await response.text(), "text/html").getElementById("runs");
}

function busy() {
  // Where rows must not move: further down the page, or with a row in focus.
  return scrollY > 120 || section().contains(document.activeElement);
}

function merge(fresh) {
  const current = section();
  document.getElementById("loop-note").replaceChildren(...fresh.querySelector("#loop-note").childNodes);
  const body = current.querySelector("tbody");
  const freshBody = fresh.querySelector("tbody");
  if (!body || !freshBody) {
    current.replaceWith(fresh);
    htmx.process(fresh);
    hidePill();
    refreshTimes();
    return;
  }
  const known = new Map(rowsOf(current).map((row) => [row.id, row]));
  let coming = 0;
  const hold = busy();
  let place = body.firstElementChild;
  for (const row of rowsOf(freshBody)) {
    const old = known.get(row.id);
    if (!old) {
      if (hold) { coming += 1; continue; }
      row.classList.add("is-new");
      body.insertBefore(row, place);
      continue;
    }
    known.delete(row.id);
    place = update(old, row).nextElementSibling;
  }
  // What is left over has gone from this page: deleted, filtered out, or pushed to the next one.
  if (!hold) for (const row of known.values()) row.remove();
  showPill(coming);
  refreshTimes();
}

function update(old, row) {
  if (old.className !== row.className) old.className = row.className;
  for (let i = 0; i < row.cells.length; i += 1) {
    // Both are the server's own words; comparing them spares the cell what has not changed.
    const fresh = row.cells[i].innerHTML;
    if (old.cells[i].source === fresh) continue;
    if (old.cells[i].source !== undefined || !same(old.cells[i], row.cells[i])) {
      if (old.cells[i].contains(document.activeElement)) continue;
      old.cells[i].replaceChildren(...row.cells[i].childNodes);
    }
    old.cells[i].source = fresh;
  }
  return old;
}

function same(a, b) {
  // Running times are of the script's making: what counts is what they are about.
  const strip = (cell) => [...cell.querySelectorAll("time")].map((time) => time.dateTime).join()
    + (cell.querySelector("time") ? "" : cell.textContent);
  return strip(a) === strip(b);
}

function showPill(count) {
  pill.hidden = count === 0;
  pill.textContent = `${count} new run${count === 1 ? "" : "s"}`;
}

function hidePill() { pill.hidden = true; }

const look = throttled(async () => {
  if (document.hidden) return;
  try {
    const fresh = await fetchSection();
    if (fresh) merge(fresh);
  } catch { /* away: the next look will tell */ }
}, 400);

pill.addEventListener("click", () => {
  document.activeElement?.blur();
  scrollTo({ top: 0 });
  hidePill();
  look();
});

// That something is not seen any more rings no bell: while anything lives here, look now and then.
setInterval(() => section().querySelector(".is-live") && look(), 15_000);

watchChanges({
  state: showState,
  changed(runs) {
    const ids = Object.keys(runs);
    const first = section().dataset.first === "1";
    if (!ids.length || first || ids.some((id) => document.getElementById(`run-${id}`))) look();
  },
});
