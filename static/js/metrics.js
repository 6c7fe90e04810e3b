// The curves on a run's page: one chart for each number, attempts as bands, followed while the run lives.

const root = document.getElementById("metrics");
const section = document.getElementById("tab-metrics");
const filter = document.getElementById("metrics-filter");
const charts = new Map(); // key → { figure, plot, output }
const EVERY = 5000;
let attempts = [];
let asking = false;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Every second attempt lies on a band, so that one sees where a new one began. */
function bands(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = css("--tone-secondary");
  ctx.globalAlpha = 0.1;
  for (const attempt of attempts) {
    if (attempt.index % 2 === 0) continue;
    const from = Math.max(bbox.left, plot.valToPos(attempt.from, "x", true));
    const to = Math.min(bbox.left + bbox.width, plot.valToPos(attempt.to ?? Date.now() / 1000, "x", true));
    if (to > from) ctx.fillRect(from, bbox.top, to - from, bbox.height);
  }
  ctx.restore();
}

function columns(points) {
  const times = [], values = [];
  let before = null;
  for (const [attempt, time, value] of points) {
    if (before !== null && attempt !== before) { times.push(time - 0.001); values.push(null); } // no line between attempts
    times.push(time);
    values.push(value);
    before = attempt;
  }
  return [times, values];
}

const short = (value) => value == null ? "–" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(5));

/** A moment on the axis, as exact as its steps are. */
function clock(time, step) {
  const parts = step >= 86_400 ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (step < 60) parts.second = "2-digit";
  return new Date(time * 1000).toLocaleString(undefined, parts);
}

function make(key) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const caption = document.createElement("figcaption");
  const name = document.createElement("strong");
  const output = document.createElement("output");
  name.textContent = key;
  caption.append(name, output);
  const place = document.createElement("div");
  place.className = "plot";
  figure.append(caption, place);
  document.getElementById("metrics-charts").append(figure);
  const axis = { stroke: () => css("--tone-secondary"), grid: { stroke: () => `${css("--tone-secondary")}2e`, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const plot = new uPlot({
    width: place.clientWidth || 300,
    height: place.clientHeight || 176,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: { x: { time: true } },
    axes: [{ ...axis, size: 28, space: 64, values: (_, splits, __, ___, step) => splits.map((time) => clock(time, step)) }, { ...axis, size: 58, values: (_, splits) => splits.map(short) }],
    series: [{}, { stroke: () => css("--tone-blue"), width: 1.5, points: { show: (self) => self.data[0].length < 3, size: 5 } }],
    hooks: {
      drawClear: [bands],
      setCursor: [(self) => {
        const at = self.cursor.idx;
        output.textContent = short(at == null ? charts.get(key)?.last : self.data[1][at]);
      }],
    },
  }, [[], []], place);
  new ResizeObserver(() => place.clientWidth && plot.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
  return { figure, plot, output, last: null };
}

function show(answer) {
  attempts = answer.attempts;
  for (const [key, points] of Object.entries(answer.series)) {
    if (!charts.has(key)) charts.set(key, make(key));
    const chart = charts.get(key);
    chart.last = points.at(-1)[2];
    chart.plot.setData(columns(points));
    if (chart.plot.cursor.idx == null) chart.output.textContent = short(chart.last);
    chart.figure.setAttribute("aria-label", `${key}: ${points.length} points, last ${short(chart.last)}`);
  }
  document.getElementById("metrics-none").hidden = charts.size > 0;
  filter.hidden = charts.size < 7;
  sift();
}

function sift() {
  const words = filter.querySelector("input").value.trim().toLowerCase();
  for (const [key, { figure }] of charts) figure.hidden = !key.toLowerCase().includes(words);
}

async function look() {
  if (asking || section.hidden || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch(root.dataset.url, { headers: { Accept: "application/json" } });
    if (answer.ok) show(await answer.json());
  } catch {
    // Away: the next look may find it.
  } finally {
    asking = false;
  }
}

filter.addEventListener("input", sift);
new MutationObserver(() => { if (!section.hidden) look(); }).observe(section, { attributes: true, attributeFilter: ["hidden"] });
new MutationObserver(() => { for (const { plot } of charts.values()) plot.redraw(); }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
setInterval(() => /COMPLETED|STOPPED|FAILED/.test(document.getElementById("run-live").dataset.status) || look(), EVERY);
look();
