// The socket that says which runs changed. It carries no state: whoever listens looks for itself.

const SILENT = 45_000; // the server sends something every 20 s

export function socketUrl(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

/** Close a socket without the complaint that browsers write for one that is not open yet. */
export function closeQuietly(socket) {
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close(1000);
  else socket.close(1000);
}

/** Waits 0.5 s, 1 s, … 15 s between tries, with some chance in it: not everybody at once. */
export function backoff(tries) {
  return Math.min(15_000, 500 * 2 ** Math.min(tries, 5)) * (0.75 + Math.random() / 2);
}

/**
 * Calls `changed({id: status, …})` for each message, with {} after each (re)connection and, while the socket is
 * away, every 10 s: then look at everything. `state(connected)` says how it is.
 */
export function watchChanges({ run = null, changed, state = () => {} }) {
  let socket = null;
  let tries = 0;
  let silence = 0;
  let connected = false;
  let ended = false;

  function set(value) {
    if (value !== connected) state(connected = value);
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => socket?.close(), SILENT);
  }

  function connect() {
    socket = new WebSocket(socketUrl(`/ws/changes${run ? `?run=${run}` : ""}`));
    socket.onopen = heard;
    let first = true;
    socket.onmessage = (event) => {
      heard();
      tries = 0;
      set(true);
      const { runs } = JSON.parse(event.data);
      if (first || Object.keys(runs).length) changed(runs);
      first = false;
    };
    socket.onclose = (event) => {
      clearTimeout(silence);
      set(false);
      // 4401: logged out; 4404: not ours (any more). The next look at the page will say so.
      if (event.code === 4401 || event.code === 4404) {
        changed({});
        if (event.code === 4401 || run) return;
      }
      if (!ended) setTimeout(connect, backoff(tries++));
    };
  }

  connect();
  setInterval(() => connected || document.hidden || changed({}), 10_000);
  document.addEventListener("visibilitychange", () => document.hidden || changed({}));
  addEventListener("pagehide", () => { ended = true; closeQuietly(socket); });
  // A page that comes back from the browser's cache has no socket any more.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

/** `action`, at most once in `ms`, and once more for what was asked for meanwhile. Never two at a time. */
export function throttled(action, ms) {
  let busy = false;
  let again = false;
  return async function run() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      await action();
    } finally {
      setTimeout(() => {
        busy = false;
        if (again) { again = false; run(); }
      }, ms);
    }
  };
}

/** Says in the header that the page is not live, once that has lasted. */
export function showState(connected) {
  const line = document.getElementById("live-state");
  if (!line) return;
  clearTimeout(showState.timer);
  if (connected) line.hidden = true;
  else {
    showState.timer = setTimeout(() => {
      line.textContent = "Reconnecting; looking every 10 s";
      line.hidden = false;
    }, 3000);
  }
}
