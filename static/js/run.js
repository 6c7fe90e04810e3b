// The run page: its head follows the run, its tabs need no request, its log is a pane.
import { showState, throttled, watchChanges } from "./live.js";
import { LogPane } from "./log/pane.js";

const live = () => document.getElementById("run-live");
const pane = new LogPane(document.getElementById("log"), () => document.getElementById("log-streams"));

const look = throttled(async () => {
  if (document.hidden) return;
  // From the body: an element that another answer has replaced meanwhile could not take this one.
  await htmx.ajax("GET", live().dataset.url, { source: document.body, target: "#run-live", swap: "outerHTML" });
}, 300);

watchChanges({ run: live().dataset.run, state: showState, changed: look });

// Ranks come and go without a change of status: while the run lives, look now and then.
setInterval(() => /COMPLETED|STOPPED|FAILED/.test(live().dataset.status) || look(), 5000);

const shown = live().dataset.attempt;
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "run-live") return;
  const head = live();
  document.title = head.dataset.title;
  if (head.dataset.attempt !== shown && head.dataset.pinned === "0") {
    // The next attempt: who follows goes on with it, who reads is asked.
    if (pane.following) location.reload();
    else pane.offer(`Attempt ${Number(head.dataset.attempt) + 1} has begun: show it`, () => location.reload());
    return;
  }
  pane.sync();
});

// -- tabs ------------------------------------------------------------------------------------------

function show(tab) {
  for (const link of document.querySelectorAll("#tabs [data-tab]")) {
    const current = link.dataset.tab === tab;
    current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    document.getElementById(`tab-${link.dataset.tab}`).hidden = !current;
  }
  if (tab === "logs") pane.shown();
}

document.getElementById("tabs").addEventListener("click", (event) => {
  const link = event.target.closest("[data-tab]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const url = new URL(location.href);
  url.searchParams.set("tab", link.dataset.tab);
  history.replaceState(null, "", url);
  show(link.dataset.tab);
});

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("[data-show-rank]");
  if (!link) return;
  const line = Number(link.dataset.logLine);
  const wanted = new URL(link.href || location.href).searchParams;
  // A line of another attempt is on another page.
  if (line && wanted.get("attempt") !== live().dataset.attempt) return;
  event.preventDefault();
  show("logs");
  if (line) pane.show(Number(link.dataset.showRank), line, wanted.get("stream") ?? "MAIN");
  else pane.select(Number(link.dataset.showRank));
  document.getElementById("log").scrollIntoView({ block: "nearest" });
});
