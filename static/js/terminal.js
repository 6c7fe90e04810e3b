// A terminal in a run: keys go out as bytes, what it shows comes in as bytes; xterm.js does the rest.
import { socketUrl } from "./live.js";

const place = document.getElementById("terminal");
const card = document.getElementById("terminal-card");
const state = document.getElementById("terminal-state");
const again = document.getElementById("terminal-again");
const encoder = new TextEncoder();

const terminal = new Terminal({
  cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
  fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--ry-mono"),
  fontSize: 13,
  scrollback: 10_000,
  theme: { background: "#101418", foreground: "#e6e9ee", cursor: "#7fb3ff", selectionBackground: "#31507a" },
});
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(place);
terminal.textarea.setAttribute("aria-label", "Terminal; F6 leaves it");

let socket = null;

function say(text, kind = "") {
  state.textContent = text;
  state.classList.toggle("is-open", kind === "open");
  state.classList.toggle("is-over", kind === "over");
  card.classList.toggle("is-over", kind === "over");
  again.hidden = kind !== "over";
}

function send(data) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(data);
}

function tellSize() {
  send(JSON.stringify({ columns: terminal.cols, lines: terminal.rows }));
}

function over(text) {
  say(text, "over");
  terminal.write("\r\n\x1b[0;33m" + text + "\x1b[0m\r\n");
}

function connect() {
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  const mine = (socket = new WebSocket(socketUrl(place.dataset.socket)));
  let ended = false;
  mine.binaryType = "arraybuffer";
  terminal.reset();
  say("Connecting…");
  mine.onopen = tellSize;
  mine.onmessage = (event) => {
    if (typeof event.data !== "string") return terminal.write(new Uint8Array(event.data));
    const message = JSON.parse(event.data);
    if (message.open) {
      say("Connected", "open");
      terminal.focus();
    } else if (message.ended) {
      ended = true;
      over(message.ended);
    }
  };
  mine.onclose = (event) => {
    if (ended) return;
    if (event.code === 4401) over("You are logged out: log in again.");
    else if (event.code === 4404) over("You may not use this run any more.");
    else over("The connection was lost. What ran in this terminal was hung up; the run goes on.");
  };
}

terminal.onData((text) => send(encoder.encode(text)));
terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
terminal.onResize(tellSize);
terminal.attachCustomKeyEventHandler((event) => {
  if (event.key !== "F6") return true;
  if (event.type === "keydown") (again.hidden ? document.querySelector(".actions a") : again).focus();
  event.preventDefault();
  return false;
});
again.addEventListener("click", connect);
// Before the browser forgets it, so that it is hung up at once.
addEventListener("pagehide", () => socket?.close(1000));

new ResizeObserver(() => fit.fit()).observe(place);
fit.fit();
if (place.dataset.auto === "1") connect();
else say(state.textContent, "over");
