// What is said about a log: honest, short, and the same for everybody who looks.
const count = (value) => value.toLocaleString("en");
const COUNTING = 5000;

const OVER = ["COMPLETED", "STOPPED", "FAILED"];
export const over = (status) => OVER.includes(status);

function secrets({ masked, tooShort }) {
  const hidden = masked ? ` · ${count(masked)} secret${masked === 1 ? "" : "s"} masked` : "";
  return tooShort ? `${hidden} · ${count(tooShort)} too short to mask` : hidden;
}

/** [kind, text, title] for a source: kind is waiting, live, paused, complete or incomplete. */
export function describe(source, { following, status }) {
  if (!source) return ["waiting", "Waiting", ""];
  const size = `${count(source.committed)} bytes`;
  const masked = secrets(source);
  if (source.link === "gone") return ["incomplete", "This log is not there any more", ""];
  if (source.ended !== null && source.ended !== undefined) {
    const title = source.sha256 ? `SHA-256 of all its bytes: ${source.sha256}` : "";
    if (source.ended === "complete") return ["complete", `Complete · ${size}${source.sha256 ? " · sha256 ✓" : ""}${masked}`, title];
    return ["incomplete", `Incomplete (${source.ended}) · ${size} are safe${masked}`, title];
  }
  if (source.link === "connecting") return ["waiting", "Connecting", ""];
  if (source.link === "reconnecting") return ["waiting", `Reconnecting (${source.tries})${source.committed ? ` · ${size}` : ""}`, ""];
  if (!source.committed) return [over(status) ? "waiting" : "live", over(status) ? "Waiting for the log's end" : "Live · no output yet", ""];
  const lines = `${count(source.total)} lines`;
  const how = source.link === "polling" ? "Live by requests" : "Live";
  const title = source.link === "polling" ? "Websockets do not get through: lines come by requests that wait for them" : "";
  if (over(status)) return ["waiting", `Waiting for the log's end · ${size} are safe${masked}`, ""];
  if (source.rate > COUNTING) return ["live", `${how} · ${count(source.rate)} lines/s, showing the newest of ${lines}${masked}`, title];
  return following ? ["live", `${how} · ${lines}${masked}`, title] : ["paused", `${how} · follow paused · ${lines}${masked}`, title];
}

/** Why there is nothing to see, and what that waits for. */
export function whyEmpty(source, status) {
  if (source?.ended) return "Nothing was written.";
  if (source?.link === "gone") return "This log is not there any more.";
  if (source?.link === "connecting") return "";
  if (source) return over(status) ? "Nothing was written so far." : "No output yet. It appears here as soon as the command writes some.";
  if (status === "PENDING" || status === "QUEUED") return "The log begins when the run is given its nodes.";
  return over(status) ? "The run never started: there is no log." : "No output yet: waiting for the node.";
}
