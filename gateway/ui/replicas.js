// The broker replicas: whether they answer, and what each of them does.

import { withDot } from "./commands.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { ago, count, rate, shortSeconds } from "./format.js";
import { between, percentile } from "./rates.js";
import { once, Table, write } from "./table.js";

const OVER_S = 30;

export class Replicas {
  #rows = [];
  #figures = new Map(); // by replica and start: [{at, figures}], oldest first
  #now = 0;

  /** `drain(row)` is asked for a replica whose executors have somewhere to go. */
  constructor(drain) {
    const may = (row) => this.mayDrain(row);
    this.table = new Table(byId("replicas"), {
      label: "Replicas",
      empty: "No replica is known.",
      key: (row) => row.replica_id || row.address,
      act: { d: (row) => may(row) && drain(row) },
      columns: [
        { label: "Replica", draw: (cell, row) => write(cell, row.replica_id || row.address, row.address) },
        { label: "State", width: 170, draw: drawState },
        { label: "Up for", width: 84, class: "low", draw: (cell, row) => write(cell, row.started_at ? ago(row.started_at, this.#now) : "–", row.started_at) },
        { label: "Version", width: 84, class: "low", draw: (cell, row) => write(cell, row.version || "–") },
        { label: "Executors", width: 92, class: "number", draw: (cell, row) => write(cell, row.is_reachable ? count(row.executors) : "–", null) },
        { label: "In flight", width: 92, class: "number low", draw: (cell, row) => write(cell, row.is_reachable ? count(inFlight(row)) : "–", inFlightTitle(row)) },
        { label: "Commands/s", width: 100, class: "number low", draw: (cell, row) => write(cell, rate(this.#rate(row)), null) },
        { label: "Loop lag p99", width: 110, class: "number mid", draw: (cell, row) => write(cell, this.#lag(row), "how much too late its event loop wakes") },
        { label: "Redis", width: 150, class: "mid", draw: drawRedis },
        { label: "", width: 84, class: "action", draw: (cell, row) => drawDrain(cell, row, may(row), drain) },
      ],
    });
  }

  take(overview, at) {
    this.#rows = overview.replicas;
    this.#now = Date.parse(overview.at);
    const names = new Set();
    for (const row of this.#rows) {
      if (!row.figures) continue;
      const name = nameOf(row);
      names.add(name);
      const kept = this.#figures.get(name) ?? [];
      kept.push({ at, figures: row.figures });
      while (kept.length > 2 && kept[1].at < at - OVER_S) kept.shift();
      this.#figures.set(name, kept);
    }
    for (const name of this.#figures.keys()) if (!names.has(name)) this.#figures.delete(name);
  }

  draw(matches) {
    this.table.show(this.#rows.filter(matches));
  }

  /** Executors of a replica have somewhere to go. */
  mayDrain(row) {
    const others = this.#rows.filter((each) => each !== row && each.is_reachable && !each.is_draining && each.replica_id !== row.replica_id);
    return row.is_reachable && !row.is_draining && row.replica_id !== "" && others.length > 0;
  }

  #rate(row) {
    const kept = row.is_reachable ? this.#figures.get(nameOf(row)) : undefined;
    if (!kept || kept.length < 2) return null;
    const n = (figures) => figures.ends.reduce((sum, end) => sum + end.count, 0);
    const first = kept[Math.max(0, kept.length - 6)];
    return (n(kept.at(-1).figures) - n(first.figures)) / (kept.at(-1).at - first.at);
  }

  #lag(row) {
    const kept = row.is_reachable ? this.#figures.get(nameOf(row)) : undefined;
    if (!kept || kept.length < 2) return "–";
    return shortSeconds(percentile(between(kept[0].figures.loop_lag, kept.at(-1).figures.loop_lag), 0.99));
  }
}

const nameOf = (row) => `${row.replica_id} ${row.started_at}`;

/** Without those that are forwarded: the replica that runs them counts them. */
export const inFlight = (row) => Object.entries(row.in_flight).reduce((sum, [state, n]) => sum + (state === "forwarded" ? 0 : n), 0);

const inFlightTitle = (row) => Object.entries(row.in_flight).map(([state, n]) => `${n} ${state}`).join(", ");

function drawState(cell, row) {
  const { dot, label } = once(cell, withDot);
  let [text, kind] = ["answers", "good"];
  if (!row.is_reachable) [text, kind] = ["does not answer", "bad"];
  else if (row.is_draining) [text, kind] = ["drained", "warn"];
  setAttribute(dot, "class", `dot ${kind}`);
  setText(label, text);
}

function drawRedis(cell, row) {
  const { dot, label } = once(cell, withDot);
  const figures = row.figures;
  dot.hidden = !figures;
  setAttribute(dot, "class", `dot ${figures?.is_redis_degraded ? "bad" : "good"}`);
  const waiting = figures?.redis_writes_waiting ? `, ${count(figures.redis_writes_waiting)} wait` : "";
  setText(label, figures ? (figures.is_redis_degraded ? `degraded${waiting}` : "takes writes") : "–");
}

function drawDrain(cell, row, may, drain) {
  const button = once(cell, () => {
    const made = el("button", { type: "button", class: "small", text: "Drain", tabindex: -1, "aria-keyshortcuts": "d" });
    made.addEventListener("click", () => drain(made.row));
    cell.append(made);
    return made;
  });
  button.row = row;
  button.disabled = !may;
  setAttribute(button, "aria-label", `Drain ${row.replica_id || row.address}`);
  setAttribute(button, "title", may || row.is_draining ? null : "Its executors would have nowhere to go");
}
