// The bytes of one log stream, in order, each once: by websocket, by requests that wait where sockets do not get through.
import { backoff, closeQuietly, socketUrl } from "../live.js";

const OPEN_WITHIN = 4000;
const SOCKET_AGAIN = 30_000;
const AFTER_FAILURE = 2000;

/**
 * Events: `begin({from, committed, started})`, `bytes(offset, Uint8Array)`, `marks([[offset, time, source], …])`,
 * `end({total, sha256, reason})`, `state("connecting" | "live" | "reconnecting" | "polling" | "gone", tries)`.
 * After `begin`, bytes come without gap or repeat, whatever happens to connections.
 */
export class LogStream {
  constructor({ id, url, from }, handlers) {
    this.id = id;
    this.url = url;
    this.from = from;
    this.handlers = handlers;
    this.expected = null;
    this.tries = 0;
    this.closed = false;
    this.connect();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    if (this.socket) closeQuietly(this.socket);
  }

  emit(name, ...values) {
    if (!this.closed) this.handlers[name]?.(...values);
  }

  connect() {
    this.emit("state", this.tries ? "reconnecting" : "connecting", this.tries);
    const socket = new WebSocket(socketUrl(`/ws/log/${this.id}?from=${this.expected ?? this.from}`));
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    // A proxy may swallow what it does not know without a word.
    const patience = setTimeout(() => socket.readyState === WebSocket.CONNECTING && this.giveUp(socket), OPEN_WITHIN);
    socket.onmessage = (event) => {
      if (this.closed || socket !== this.socket) return;
      if (typeof event.data === "string") this.message(JSON.parse(event.data));
      else this.frame(event.data, socket);
    };
    socket.onclose = (event) => {
      clearTimeout(patience);
      if (this.closed || socket !== this.socket) return;
      if (event.code === 4404 || event.code === 4401) {
        this.emit("state", "gone", 0);
        this.close();
        return;
      }
      this.tries += 1;
      // One that never came to a message is blocked, as far as we can tell; others get a few tries.
      if (this.tries > 3 || !this.everHeard) this.poll(performance.now() + SOCKET_AGAIN);
      else {
        this.emit("state", "reconnecting", this.tries);
        this.timer = setTimeout(() => this.connect(), backoff(this.tries));
      }
    };
  }

  giveUp(socket) {
    if (this.closed || socket !== this.socket) return;
    this.socket = null;
    closeQuietly(socket);
    this.tries += 1;
    this.poll(performance.now() + SOCKET_AGAIN);
  }

  message(message) {
    if ("from" in message) {
      this.tries = 0;
      this.everHeard = true;
      if (this.expected === null) {
        this.expected = message.from;
        this.emit("begin", message);
      }
      this.emit("state", "live", 0);
    }
    if (message.marks) this.emit("marks", message.marks);
    if (message.end) this.finish(message.end);
  }

  frame(buffer, socket) {
    const offset = Number(new DataView(buffer).getBigUint64(0));
    if (offset !== this.expected) {
      // Never show a gap as if it were none: ask again from where we are.
      socket.close(4000, "offset");
      return;
    }
    const data = new Uint8Array(buffer, 8);
    this.expected += data.length;
    this.emit("bytes", offset, data);
  }

  finish(end) {
    this.emit("end", end);
    this.close();
  }

  async poll(until) {
    if (this.closed) return;
    this.emit("state", "polling", this.tries);
    try {
      const piece = await fetchRange(this.url, this.expected ?? this.from);
      if (this.closed) return;
      if (this.expected === null) {
        this.expected = piece.offset;
        this.emit("begin", { from: piece.offset, committed: piece.committed, started: null });
      }
      if (piece.offset === this.expected && piece.data.length) {
        this.expected += piece.data.length;
        this.emit("marks", await fetchMarks(this.url, piece.offset, this.expected));
        this.emit("bytes", piece.offset, piece.data);
      }
      if (this.expected < piece.committed) return void this.poll(until);
      if (piece.ended !== null) {
        return void this.finish({ total: piece.committed, sha256: piece.sha256, reason: piece.ended });
      }
    } catch (problem) {
      if (problem instanceof Gone) {
        this.emit("state", "gone", 0);
        return void this.close();
      }
    }
    if (this.closed) return;
    if (performance.now() > until) return void this.connect();
    try {
      await get(`${this.url}/wait?after=${this.expected ?? 0}`);
      this.poll(until);
    } catch {
      this.timer = setTimeout(() => this.poll(until), AFTER_FAILURE);
    }
  }
}

class Gone extends Error {
  gone = true;
}

const HEADERS = { "HX-Request": "true" };

/** A JSON answer of the console. */
export async function get(url) {
  const response = await fetch(url, { headers: HEADERS });
  if (response.headers.get("HX-Refresh") || (response.status === 404 && !/\/lines\/\d+/.test(url))) throw new Gone(url);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The console answered ${response.status}.`);
  return answer;
}

/** Bytes from `from` (negative: from the end), at most 1 MiB. */
async function fetchRange(url, from) {
  const response = await fetch(`${url}?from=${from}`, { headers: HEADERS });
  if (response.status === 404 || response.headers.get("HX-Refresh")) throw new Gone(url);
  if (!response.ok) throw new Error(`${response.status}`);
  return {
    offset: Number(response.headers.get("X-Log-Offset")),
    committed: Number(response.headers.get("X-Log-Committed")),
    ended: response.headers.get("X-Log-Ended"),
    sha256: response.headers.get("X-Log-SHA256") ?? "",
    data: new Uint8Array(await response.arrayBuffer()),
  };
}

async function fetchMarks(url, from, to) {
  return (await get(`${url}/marks?from=${from}&to=${to}`)).marks;
}
