// From what a terminal would be sent to rows of styled text. Pure: no DOM, no I/O.
//
// Kept: SGR (16, 256, true colour, bold, dim, italic, underline, inverse, struck), \r, \b, tabs, erase and
// movement within the line, movement up and down over the lines before, OSC 8 links to http and https. Every other
// escape sequence is dropped; control and bidi characters are shown as symbols.

export const COLUMNS = 16_384;

export const PLAIN = Object.freeze({
  fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false, strike: false, link: null,
});

const GROUND = 0, ESCAPE = 1, CSI = 2, STRING = 3, STRING_ESCAPE = 4, SKIP_ONE = 5;

/** What would turn text around or hide in it: U+061C, 200E–200F, 202A–202E, 2066–2069, and byte order marks. */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;

/** Text with none of these is shown as it is. */
const SPECIAL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;

/**
 * A screen that grows downwards. Each of `rows` says of which line it is (`number`) and up to which line (`last`)
 * it was written on: a progress bar that moves the cursor up writes many lines on few rows.
 */
export class Terminal {
  constructor(style = PLAIN, { vertical = true } = {}) {
    this.vertical = vertical;
    this.style = style;
    this.state = GROUND;
    this.buffer = "";
    this.string = null;
    this.rows = [];
    this.at = -1;
    this.column = 0;
  }

  /** The next line of the log: on the row below, which may be there already. */
  line(number, text) {
    this.at += 1;
    this.column = 0;
    this.number = number;
    if (!this.rows[this.at]) this.rows[this.at] = { number, last: number, chars: [], styles: [], spans: null, cut: 0 };
    // A row on which nobody has written is the line's that does.
    else if (!this.row.chars.length && !this.row.spans) this.row.number = number;
    this.touch();
    if (this.state === GROUND && !this.row.chars.length && text.length <= COLUMNS && !SPECIAL.test(text)) {
      // Most lines of most logs: nothing to interpret.
      if (text) this.row.spans = [{ text, style: this.style }];
      return;
    }
    this.write(text);
    // A line end always ends what a sequence began: lines hang on it.
    this.state = GROUND;
  }

  get row() { return this.rows[this.at]; }

  touch() {
    const { row } = this;
    row.last = Math.max(row.last, this.number);
    if (!row.spans) return;
    // Somebody writes on a row that was kept as it came.
    row.chars = [...row.spans.map((span) => span.text).join("")];
    row.styles = row.chars.map(() => row.spans[0].style);
    row.spans = null;
  }

  /** Take decoded text, in pieces of any size. */
  write(text) {
    for (const char of text) {
      if (this.state === GROUND) this.ground(char);
      else this.escape(char);
    }
  }

  ground(char) {
    const code = char.codePointAt(0);
    if (code >= 0x20 && code < 0x7f) this.put(char);
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
    const { row } = this;
    if (this.column >= COLUMNS) { row.cut += 1; return; }
    while (row.chars.length < this.column) { row.chars.push(" "); row.styles.push(PLAIN); }
    row.chars[this.column] = char;
    row.styles[this.column] = this.style;
    this.column += 1;
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
        else this.state = GROUND;
        return;
      case SKIP_ONE:
        if (code < 0x20 || code >= 0x30) this.state = GROUND;
        return;
      case CSI:
        if (code >= 0x40 && code <= 0x7e) {
          this.state = GROUND;
          this.control(char);
        } else if (code === 0x1b) this.state = ESCAPE;
        else if (this.buffer.length < 256) this.buffer += char;
        return;
      case STRING:
        if (code === 0x07) this.endString();
        else if (code === 0x1b) this.state = STRING_ESCAPE;
        else if (this.buffer.length < 4096) this.buffer += char;
        return;
      default:
        if (char === "\\") this.endString();
        else { this.state = ESCAPE; this.escape(char); }
    }
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
    else if (final === "A" && this.vertical) this.move(-count);
    else if (final === "B" && this.vertical) this.move(count);
    else if (final === "F" && this.vertical) { this.move(-count); this.column = 0; }
    else if (final === "E" && this.vertical) { this.move(count); this.column = 0; }
  }

  /** Up or down over rows that are there. */
  move(count) {
    const to = Math.max(0, Math.min(this.rows.length - 1, this.at + count));
    if (to === this.at) return;
    this.at = to;
    this.touch();
  }

  erase(mode) {
    const { row } = this;
    if (mode === 0) { row.chars.length = Math.min(row.chars.length, this.column); row.styles.length = row.chars.length; }
    else if (mode === 2) { row.chars = []; row.styles = []; }
    else if (mode === 1) {
      for (let i = 0; i <= this.column && i < row.chars.length; i += 1) { row.chars[i] = " "; row.styles[i] = PLAIN; }
    }
  }
}

/**
 * The rows that lines make, and the style in which text goes on. `states`: every state of a line that was written
 * over is a row of its own (`sub` counts them), and the cursor does not move to other lines.
 */
export function replay(lines, style = PLAIN, { states = false } = {}) {
  if (!states) {
    const terminal = new Terminal(style);
    for (const line of lines) terminal.line(line.number, line.text);
    return { rows: terminal.rows.map((row) => finished(row, 0)), style: terminal.style };
  }
  const rows = [];
  for (const line of lines) {
    line.text.replace(/\r+$/, "").split(/\r+/).forEach((text, sub) => {
      const terminal = new Terminal(style, { vertical: false });
      terminal.line(line.number, text);
      style = terminal.style;
      rows.push(finished(terminal.rows[0], sub));
    });
  }
  return { rows, style };
}

function finished({ number, last, chars, styles, spans: kept, cut }, sub) {
  return { number, last, sub, cut, spans: kept ?? spans(chars, styles) };
}

function safeLink(address) {
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

function spans(chars, styles) {
  if (!chars.length) return [];
  const found = [];
  let start = 0;
  for (let i = 1; i <= chars.length; i += 1) {
    if (i < chars.length && styles[i] === styles[start]) continue;
    found.push({ text: chars.slice(start, i).join(""), style: styles[start] });
    start = i;
  }
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
