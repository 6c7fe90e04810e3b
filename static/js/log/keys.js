// The keyboard of the log: single keys, only while the log has the focus, and only if the reader wants them.

/** [keys, what they do]; `null` keys are handled elsewhere and only listed. */
export const KEYS = [
  ["/", "Search the whole log"],
  ["n N", "Next, previous match"],
  ["[ ]", "Previous, next error"],
  ["g g", "Top"],
  ["G End", "End, and follow"],
  ["f", "Follow on or off"],
  ["j k ↓ ↑", "A line down, up"],
  ["Space PgDn PgUp", "A page down, up"],
  [":", "Go to a line or a time"],
  ["1 – 9", "Rank"],
  ["m", "All ranks as one log"],
  ["t", "Timestamps"],
  ["w", "Wrap long lines"],
  ["o", "Every state of progress bars"],
  ["y", "Copy a link to this place"],
  ["d", "Download as it was written"],
  ["Shift+F", "Full screen"],
  ["?", "This list"],
  ["Esc", "Leave search, full screen"],
];

const TWICE = 1000;

/** `actions`: by key; "g g" is one. Movement keys work always, single letters if `allowed()`. */
export function bindKeys(scroller, actions, allowed) {
  let g = 0;
  scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== scroller) return;
    let { key } = event;
    if (key.length === 1 && key !== " ") {
      if (!allowed() && key !== "?") return;
      if (key === "g") {
        const now = performance.now();
        key = now - g < TWICE ? "g g" : "";
        g = now;
      } else if (/^[1-9]$/.test(key)) {
        event.preventDefault();
        actions.rank(Number(key) - 1);
        return;
      }
    }
    if (event.shiftKey && key === " ") key = "PageUp";
    const action = actions[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

export function drawKeys(list) {
  list.replaceChildren(...KEYS.flatMap(([keys, what]) => {
    const term = document.createElement("dt");
    for (const key of keys.split(" ")) {
      const cap = document.createElement(key === "–" ? "span" : "kbd");
      cap.textContent = key;
      term.append(cap, " ");
    }
    const meaning = document.createElement("dd");
    meaning.textContent = what;
    return [term, meaning];
  }));
}
