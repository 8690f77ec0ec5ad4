// Errors by reason: how many of each lately.

import { byId } from "./dom.js";
import { count } from "./format.js";
import { Table, write } from "./table.js";

export class Reasons {
  constructor() {
    this.table = new Table(byId("reasons"), {
      label: "Errors by reason",
      empty: "No errors within the last 5 minutes.",
      key: (row) => row.name,
      columns: [
        { label: "Reason", class: "mono", draw: (cell, row) => write(cell, row.reason) },
        { label: "Outcome", width: 110, class: "mid", draw: (cell, row) => write(cell, row.outcome.replaceAll("_", " "), null) },
        { label: "Last minute", width: 104, class: "number", draw: (cell, row) => write(cell, count(row.minute), null) },
        { label: "5 minutes", width: 104, class: "number", draw: (cell, row) => write(cell, count(row.all), null) },
      ],
    });
  }

  /** Of what happened within the last minute, and within five. */
  draw(minute, five) {
    const rows = [...five.ends]
      .map(([name, n]) => ({ name, outcome: name.split(" ")[0], reason: name.split(" ")[1], minute: minute.ends.get(name) ?? 0, all: n }))
      .filter((row) => row.reason);
    rows.sort((a, b) => b.minute - a.minute || b.all - a.all || (a.name < b.name ? -1 : 1));
    this.table.show(rows);
  }
}
