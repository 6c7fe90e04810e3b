// From what a terminal would be sent to lines of styled text. Pure: no DOM but in `render`, no I/O.
//
// Kept: SGR (16, 256, true colour, bold, dim, italic, underline, inverse, struck), \r, \b, tabs, erase and
// movement within the line, OSC 8 links to http and https. Every other escape sequence is dropped; control
// and bidi characters are shown as symbols. A line is at most COLUMNS wide here; the rest is in the download.

export const COLUMNS = 16_384;

const PLAIN = Object.freeze({
  fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false, strike: false, link: null,
});

const GROUND = 0, ESCAPE = 1, CSI = 2, STRING = 3, STRING_ESCAPE = 4, SKIP_ONE = 5;

/** What would turn text around or hide in it: U+061C, 200E–200F, 202A–202E, 2066–2069, and byte order marks. */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;

export class Terminal {
  /** `online(line)` gets each line that is done: a list of {text, style}, and `cut`, the characters left out. */
  constructor(online) {
    this.online = online;
    this.style = PLAIN;
    this.state = GROUND;
    this.buffer = "";
    this.string = null;
    this.clear();
  }

  clear() {
    this.chars = [];
    this.styles = [];
    this.column = 0;
    this.cut = 0;
  }

  /** Take decoded text, in pieces of any size. */
  write(text) {
    for (const char of text) {
      if (this.state === GROUND) this.ground(char);
      else this.escape(char);
    }
  }

  /** The line that is not done yet. */
  get current() { return spans(this.chars, this.styles, this.cut); }

  get empty() { return this.chars.length === 0; }

  ground(char) {
    const code = char.codePointAt(0);
    if (code >= 0x20 && code < 0x7f) this.put(char);
    else if (code === 0x0a) this.endLine();
    else if (code === 0x0d) this.column = 0;
    else if (code === 0x1b) this.state = ESCAPE;
    else if (code === 0x08) this.column = Math.max(0, this.column - 1);
    else if (code === 0x09) this.put("\t");
    else if (code < 0x20) this.put(String.fromCharCode(0x2400 + code));
    else if (code === 0x7f) this.put("\u2421");
    else if (code === 0x9b) { this.state = CSI; this.buffer = ""; }
    else if (code > 0x7f && code < 0xa0) this.put(`\u27e6${code.toString(16).padStart(2, "0")}\u27e7`);
    else if (BIDI.test(char)) this.put(`\u27e6U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e7`);
    else this.put(char);
  }

  put(char) {
    if (this.column >= COLUMNS) { this.cut += 1; return; }
    while (this.chars.length < this.column) { this.chars.push(" "); this.styles.push(PLAIN); }
    this.chars[this.column] = char;
    this.styles[this.column] = this.style;
    this.column += 1;
  }

  endLine() {
    this.online(this.current);
    this.clear();
  }

  escape(char) {
    const code = char.codePointAt(0);
    switch (this.state) {
      case ESCAPE:
        this.buffer = "";
        if (char === "[") this.state = CSI;
        else if (char === "]" || char === "P" || char === "^" || char === "_" || char === "X") {
          this.string = char;
          this.state = STRING;
        } else if (code >= 0x20 && code < 0x30) this.state = SKIP_ONE;
        else this.leave(code);
        return;
      case SKIP_ONE:
        if (code < 0x20 || code >= 0x30) this.leave(code);
        return;
      case CSI:
        if (code >= 0x40 && code <= 0x7e) {
          this.state = GROUND;
          this.control(char);
        } else if (code === 0x0a) this.leave(code);
        else if (code === 0x1b) this.state = ESCAPE;
        else if (this.buffer.length < 256) this.buffer += char;
        return;
      case STRING:
        if (code === 0x07) this.endString();
        else if (code === 0x1b) this.state = STRING_ESCAPE;
        // A string that is never closed must not swallow the log.
        else if (code === 0x0a) this.leave(code);
        else if (this.buffer.length < 4096) this.buffer += char;
        return;
      default:
        if (char === "\\") this.endString();
        else { this.state = ESCAPE; this.escape(char); }
    }
  }

  /** End a sequence that came to nothing. A line end always ends a line: offsets hang on it. */
  leave(code) {
    this.state = GROUND;
    if (code === 0x0a) this.endLine();
  }

  endString() {
    this.state = GROUND;
    if (this.string !== "]" || !this.buffer.startsWith("8;")) return;
    const address = this.buffer.slice(this.buffer.indexOf(";", 2) + 1);
    this.style = { ...this.style, link: safeLink(address) };
  }

  control(final) {
    const first = Number.parseInt(this.buffer, 10);
    const count = Number.isNaN(first) ? 1 : Math.max(1, first);
    if (final === "m") { if (/^[\d;:]*$/.test(this.buffer)) this.style = sgr(this.style, this.buffer); }
    else if (final === "K") this.erase(Number.isNaN(first) ? 0 : first);
    else if (final === "G") this.column = Math.min(count - 1, COLUMNS);
    else if (final === "C") this.column = Math.min(this.column + count, COLUMNS);
    else if (final === "D") this.column = Math.max(0, this.column - count);
  }

  erase(mode) {
    if (mode === 0) { this.chars.length = Math.min(this.chars.length, this.column); this.styles.length = this.chars.length; }
    else if (mode === 2) { this.chars = []; this.styles = []; }
    else if (mode === 1) {
      for (let i = 0; i <= this.column && i < this.chars.length; i += 1) { this.chars[i] = " "; this.styles[i] = PLAIN; }
    }
  }
}

function safeLink(address) {
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

function spans(chars, styles, cut) {
  const found = [];
  let start = 0;
  for (let i = 1; i <= chars.length; i += 1) {
    if (i < chars.length && styles[i] === styles[start]) continue;
    found.push({ text: chars.slice(start, i).join(""), style: styles[start] });
    start = i;
  }
  found.cut = cut;
  return found;
}

/** The style after an SGR sequence. Colours are a palette index or "#rrggbb". */
export function sgr(style, parameters) {
  const codes = parameters.split(/[;:]/).map((part) => (part === "" ? 0 : Number(part)));
  let next = { ...style };
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) next = { ...PLAIN, link: next.link };
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 9) next.strike = true;
    else if (code === 21 || code === 22) { next.bold = false; next.dim = false; }
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 29) next.strike = false;
    else if (code >= 30 && code <= 37) next.fg = code - 30;
    else if (code === 39) next.fg = null;
    else if (code >= 40 && code <= 47) next.bg = code - 40;
    else if (code === 49) next.bg = null;
    else if (code >= 90 && code <= 97) next.fg = code - 82;
    else if (code >= 100 && code <= 107) next.bg = code - 92;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes, i + 1);
      if (colour !== undefined) next[code === 38 ? "fg" : "bg"] = colour;
      i += used;
    }
  }
  return next;
}

function extended(codes, at) {
  const byte = (value) => Math.max(0, Math.min(255, value || 0));
  if (codes[at] === 5) return [palette(byte(codes[at + 1])), 2];
  if (codes[at] === 2) return [hex(byte(codes[at + 1]), byte(codes[at + 2]), byte(codes[at + 3])), 4];
  return [undefined, 1];
}

const hex = (...rgb) => `#${rgb.map((value) => value.toString(16).padStart(2, "0")).join("")}`;

function palette(index) {
  if (index < 16) return index;
  if (index >= 232) return hex(...Array(3).fill(8 + (index - 232) * 10));
  const level = (value) => (value ? 55 + value * 40 : 0);
  const cube = index - 16;
  return hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

/** Put a line's spans into an element. Text goes in as text, colours as classes or through the CSSOM. */
export function render(element, line) {
  const nodes = line.map(({ text, style }) => (style === PLAIN ? document.createTextNode(text) : styled(text, style)));
  if (line.cut) {
    const more = document.createElement("span");
    more.className = "log-cut";
    more.textContent = ` … ${line.cut.toLocaleString("en")} more characters in the download`;
    nodes.push(more);
  }
  element.replaceChildren(...nodes);
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
  let { fg, bg } = style;
  if (style.inverse) {
    [fg, bg] = [bg, fg];
    if (fg === null) names.push("fg-inverse");
    if (bg === null) names.push("bg-inverse");
  }
  if (typeof fg === "number") names.push(`fg-${fg}`);
  else if (fg) element.style.color = fg;
  if (typeof bg === "number") names.push(`bg-${bg}`);
  else if (bg) element.style.backgroundColor = bg;
  // A background of the log's own choosing needs a text colour that can be read on it.
  if (bg !== null && fg === null && !style.inverse) names.push(light(bg) ? "on-light" : "on-dark");
  if (names.length) element.className = names.join(" ");
  return element;
}

function light(colour) {
  if (typeof colour === "number") return [2, 3, 6, 7, 10, 11, 14, 15].includes(colour);
  const value = Number.parseInt(colour.slice(1), 16);
  return ((value >> 16) * 299 + ((value >> 8) & 255) * 587 + (value & 255) * 114) / 1000 > 140;
}
