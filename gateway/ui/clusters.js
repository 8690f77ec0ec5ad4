// The clusters: who is connected, where, and how much runs.

import { withDot } from "./commands.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { ago, count } from "./format.js";
import { once, Table, write } from "./table.js";

const WHICH = [
  ["all", "All", () => true],
  ["connected", "Connected", (row) => row.is_connected],
  ["away", "Away", (row) => !row.is_connected],
  ["active", "Active", (row) => row.is_active],
];

export class Clusters {
  #rows = [];
  #more = 0;
  #now = 0;
  #which = "all";
  #chips = new Map();

  /** `open(row)` is for who wants to see what a cluster runs; `changed()` when others are to be shown. */
  constructor({ open, changed }) {
    for (const [name, label] of WHICH) {
      const chip = el("button", { type: "button", "aria-pressed": name === this.#which, text: label });
      chip.addEventListener("click", () => {
        this.#which = name;
        changed();
      });
      this.#chips.set(name, chip);
      byId("which").append(chip);
    }
    this.table = new Table(byId("clusters"), {
      label: "Clusters",
      empty: "No such cluster.",
      key: (row) => row.cluster_id,
      act: { Enter: open },
      columns: [
        { label: "Cluster", draw: (cell, row) => write(cell, row.cluster_id) },
        { label: "State", width: 170, draw: (cell, row) => drawState(cell, row, this.#now) },
        { label: "Active", width: 110, class: "low", draw: (cell, row) => write(cell, row.is_active ? `for ${row.active_for_seconds} s` : "", null) },
        { label: "Running", width: 150, draw: drawLoad },
        { label: "Executors", class: "mid", draw: (cell, row) => write(cell, named(row.executors.map((each) => each.executor_id), row.more_executors)) },
        { label: "Replica", width: 150, class: "low", draw: (cell, row) => write(cell, named([...new Set(row.executors.map((each) => each.replica_id))])) },
        { label: "Versions", width: 200, class: "mid", draw: (cell, row) => write(cell, ...versions(row)) },
      ],
    });
  }

  take(overview) {
    this.#rows = overview.clusters;
    this.#more = overview.more_clusters;
    this.#now = Date.parse(overview.at);
    const text = `${count(overview.connected_clusters)} of ${count(this.#rows.length + this.#more)} connected`;
    setText(byId("clusters-count"), text);
  }

  draw(matches) {
    for (const [name, label, fits] of WHICH) {
      const chip = this.#chips.get(name);
      setText(chip, `${label} ${count(this.#rows.filter(fits).length)}`);
      setAttribute(chip, "aria-pressed", String(name === this.#which));
    }
    const [, , fits] = WHICH.find(([name]) => name === this.#which);
    const more = this.#more ? `… and ${count(this.#more)} more` : "";
    this.table.show(this.#rows.filter((row) => fits(row) && matches(row)), more);
  }
}

function drawState(cell, row, now) {
  const { dot, label } = once(cell, withDot);
  let [text, kind] = ["connected", "good"];
  if (!row.is_connected && row.executors.some((each) => each.is_moving)) [text, kind] = ["moving", "warn"];
  else if (!row.is_connected) [text, kind] = row.last_seen ? [`away for ${ago(row.last_seen, now)}`, "bad"] : ["never came", "muted"];
  setAttribute(dot, "class", `dot ${kind}`);
  setText(label, text);
  setAttribute(cell, "title", row.last_seen ? `last seen ${row.last_seen}` : null);
}

function drawLoad(cell, row) {
  const { fill, text } = once(cell, () => {
    const parts = { fill: el("span", { class: "bar-fill" }), text: el("span") };
    const track = el("span", { class: "track", "aria-hidden": "true" }, parts.fill);
    cell.append(el("span", { class: "load" }, track, parts.text));
    return parts;
  });
  const running = row.executors.reduce((sum, each) => sum + each.running, 0);
  const most = row.executors.reduce((sum, each) => sum + each.max_concurrency, 0);
  fill.style.inlineSize = `${most ? Math.min(100, (100 * running) / most) : 0}%`;
  setAttribute(fill, "class", running >= most && most ? "bar-fill full" : "bar-fill");
  // Those that are not shown may run more.
  const atLeast = row.more_executors ? "≥ " : "";
  setText(text, row.executors.length ? `${atLeast}${running} / ${most}` : "–");
  setAttribute(cell, "title", row.more_executors ? `of the ${row.executors.length} executors that are shown` : null);
}

function named(names, others = 0) {
  const more = Math.max(0, names.length - 2) + others;
  return names.slice(0, 2).join(", ") + (more ? ` and ${count(more)} more` : "");
}

function versions(row) {
  const said = row.executors.map(({ executor_id: id, versions: v }) => ({ id, text: [v.executor, v.kubernetes].filter(Boolean).join(" · ") }));
  return [[...new Set(said.map((each) => each.text))].join(", "), row.executors.map(({ executor_id: id, versions: v }) => `${id}: openline ${v.executor || "?"}, kubectl ${v.kubectl || "?"}, Kubernetes ${v.kubernetes || "?"}`).join("\n")];
}
