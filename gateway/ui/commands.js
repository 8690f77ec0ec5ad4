// The commands: those that run and wait, the longest first, and for some seconds those that have ended.

import { byId, el, setAttribute, setText } from "./dom.js";
import { argv, count, elapsed } from "./format.js";
import { once, Table, write } from "./table.js";

const ENDED_STAY_S = 10;
const MOST_ENDED = 20;

const OUTCOMES = { timed_out: "timed out", cancelled: "cancelled", lost: "lost", rejected: "rejected" };

export class Commands {
  #running = [];
  #ended = new Map(); // by command id: {…, endedAt}
  #at = 0;
  #more = 0;

  /** `cancel(row)` is asked for a command that runs. */
  constructor(cancel) {
    this.table = new Table(byId("commands"), {
      label: "Commands",
      empty: "Nothing runs.",
      key: (row) => row.command_id,
      rowClass: (row) => (row.endedAt === undefined ? "" : "over"),
      act: { c: (row) => row.endedAt === undefined && cancel(row) },
      columns: [
        { label: "State", width: 150, draw: drawState },
        { label: "For", width: 76, class: "number", draw: (cell, row) => write(cell, elapsed(row.seconds), null) },
        { label: "Cluster", width: 170, draw: (cell, row) => write(cell, row.cluster_id) },
        { label: "Command", class: "mono", draw: (cell, row) => write(cell, argv(row.argv)) },
        { label: "Owner", width: 120, class: "low", draw: (cell, row) => write(cell, row.owner) },
        { label: "Conversation", width: 150, class: "mid", draw: (cell, row) => write(cell, row.correlation_id ?? row.session_id ?? "") },
        { label: "Executor", width: 170, class: "mid", draw: (cell, row) => write(cell, row.executor_id, row.replica_id ? `${row.executor_id || "none yet"}, known to ${row.replica_id}` : "") },
        { label: "", width: 92, class: "action", draw: (cell, row) => drawCancel(cell, row, cancel) },
      ],
    });
  }

  /** `at` in seconds of the page's clock. */
  take(overview, at) {
    this.#at = at;
    this.#running = overview.commands;
    this.#more = overview.more_commands;
    for (const ended of overview.ended) {
      if (!this.#ended.has(ended.command_id)) this.#ended.set(ended.command_id, { ...ended, endedAt: at - ended.ended_s_ago });
    }
    // Not only when it is drawn: nothing is while the page is paused.
    this.#forgetEnded(at);
  }

  forget() {
    this.#ended.clear();
  }

  #forgetEnded(now) {
    for (const [id, { endedAt }] of this.#ended) if (now - endedAt > ENDED_STAY_S) this.#ended.delete(id);
  }

  /** `now` as `at`; no later than the last overview while nothing comes. */
  draw(matches, now) {
    this.#forgetEnded(now);
    const since = Math.max(0, now - this.#at);
    const running = this.#running
      .filter((row) => !this.#ended.has(row.command_id))
      .map((row) => ({ ...row, seconds: row.elapsed_s + since }));
    const ended = [...this.#ended.values()].map((row) => ({ ...row, seconds: row.total_s }));
    ended.sort((a, b) => b.endedAt - a.endedAt);
    const rows = [...running.filter(matches), ...ended.filter(matches).slice(0, MOST_ENDED)];
    this.table.show(rows, this.#more ? `… and ${count(this.#more)} more, which have been there for less long` : "");
    const shown = running.length + this.#more;
    setText(byId("commands-count"), shown ? `${count(shown)} in flight` : "");
  }
}

function stateOf(row) {
  if (row.endedAt !== undefined) {
    if (row.outcome === "exited") return row.exit_code ? [`exit ${row.exit_code}`, "warn"] : ["exit 0", "good"];
    const text = OUTCOMES[row.outcome] ?? "ended";
    return [row.outcome === "rejected" && row.reason ? row.reason.toLowerCase().replaceAll("_", " ") : text, row.outcome === "cancelled" ? "muted" : "bad"];
  }
  if (row.is_cancelling) return ["cancelling", "warn"];
  if (row.state === "running") return [row.is_live ? "running, live" : "running", "good"];
  return [{ queued: "waits", forwarded: "forwarded", written: "sent", accepted: "accepted" }[row.state] ?? row.state, "muted"];
}

function drawState(cell, row) {
  const [text, kind] = stateOf(row);
  const { dot, label } = once(cell, withDot);
  setAttribute(dot, "class", `dot ${kind}`);
  setText(label, text);
  setAttribute(cell, "title", row.reason ?? text);
}

/** A dot and a label in a cell. */
export function withDot(cell) {
  const parts = { dot: el("span", { class: "dot", "aria-hidden": "true" }), label: el("span") };
  cell.append(parts.dot, parts.label);
  return parts;
}

function drawCancel(cell, row, cancel) {
  const button = once(cell, () => {
    const made = el("button", { type: "button", class: "small", text: "Cancel", tabindex: -1, "aria-keyshortcuts": "c" });
    made.addEventListener("click", () => cancel(made.row));
    cell.append(made);
    return made;
  });
  button.row = row;
  button.hidden = row.endedAt !== undefined;
  button.disabled = row.is_cancelling === true;
  setAttribute(button, "aria-label", `Cancel ${argv(row.argv)} in ${row.cluster_id}`);
}
