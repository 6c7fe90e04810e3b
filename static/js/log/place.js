// Addresses of places in logs: /runs/<name>?attempt=0&rank=3#L10-L42

/** [first, last] of `#L10` or `#L10-L42`; null for anything else. */
export function range(hash) {
  const found = /^#L(\d{1,15})(?:-L?(\d{1,15}))?$/.exec(hash);
  if (!found) return null;
  const [a, b] = [Number(found[1]), Number(found[2] ?? found[1])];
  return [Math.min(a, b), Math.max(a, b)];
}

/** What a stream is called: "rank 0", or "rank 0 GPU 3" for a file that the process of one GPU writes for itself. */
export function titleOf({ rank, name }) {
  if (name === "MAIN") return `rank ${rank}`;
  return `rank ${rank} ${gpuOf(name) === null ? name.toLowerCase() : `GPU ${gpuOf(name)}`}`;
}

/** The same in short, for a gutter: "0", "0.3". */
export function markOf({ rank, name }) {
  return name === "MAIN" ? String(rank) : `${rank}.${gpuOf(name) ?? name.toLowerCase()}`;
}

/** 3 of "gpu-3"; null for any other name. */
export function gpuOf(name) {
  const found = /^gpu-(\d+)$/.exec(name);
  return found ? Number(found[1]) : null;
}

/** The address of lines: it names run, attempt and rank, so it means the same for ever. */
export function address({ attempt, rank, name }, lines) {
  const url = new URL(location.href);
  url.search = "";
  url.searchParams.set("attempt", attempt);
  url.searchParams.set("rank", rank);
  if (name !== "MAIN") url.searchParams.set("stream", name);
  url.hash = lines ? (lines[0] === lines[1] ? `L${lines[0]}` : `L${lines[0]}-L${lines[1]}`) : "";
  return url;
}

/** Seconds since 1970 of what somebody typed: "14:03", "14:03:20.5", "+12:30" (since `started`), ISO. NaN: none. */
export function timeOf(text, { started, utc, near }) {
  const since = /^\+(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)$/.exec(text);
  if (since) return (started ?? NaN) + (Number(since[1] ?? 0) * 60 + Number(since[2] ?? 0)) * 60 + Number(since[3]);
  const clock = /^(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d+)?))?$/.exec(text);
  if (!clock) return Date.parse(text) / 1000;
  const day = new Date((near ?? started ?? Date.now() / 1000) * 1000);
  const [hours, minutes, seconds] = [Number(clock[1]), Number(clock[2]), Number(clock[3] ?? 0)];
  const ms = Math.round((seconds % 1) * 1000);
  if (utc) day.setUTCHours(hours, minutes, Math.floor(seconds), ms);
  else day.setHours(hours, minutes, Math.floor(seconds), ms);
  return day.getTime() / 1000;
}

/** Put text on the clipboard; true if it is there. Without TLS browsers have an old way only. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.className = "visually-hidden";
    area.value = text;
    document.body.append(area);
    const focused = document.activeElement;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}
