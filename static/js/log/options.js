// What a reader has chosen, for all logs, in this browser.
const KEPT = "runyard:log";

export const options = { times: "off", wrap: true, keys: true, collapse: true, ...read() };

export function choose(change) {
  Object.assign(options, change);
  try { localStorage.setItem(KEPT, JSON.stringify(options)); } catch { /* lasts for this page */ }
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}
