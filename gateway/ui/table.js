// A table whose rows come anew every second: only what is in sight is in the page, only what differs is written, and a row
// that somebody has chosen stays chosen.

import { el, setAttribute, setText } from "./dom.js";

// Rows beyond what is in sight that are there all the same, so that scrolling finds them.
const MARGIN = 12;
const USUAL_HEIGHT = 36;

export class Table {
  #rows = [];
  #drawn = new Map(); // by key: {row, cells}
  #chosen = null;
  #chosenAt = 0;
  #above = spacer();
  #below = spacer();

  /**
   * `columns` is [{label, class, width, draw(cell, row)}], where `draw` writes into a td. `key(row)` names a row. `act` is
   * {key: (row) => …} for keys that do something with the chosen row.
   */
  constructor(scroll, { label, columns, key, act = {}, empty, rowClass = () => "" }) {
    this.key = key;
    this.act = act;
    this.columns = columns;
    this.rowClass = rowClass;
    this.scroll = scroll;
    const widths = columns.map((column) => el("col", { class: column.class, width: column.width }));
    const heads = columns.map((column) => el("th", { scope: "col", class: column.class, text: column.label }));
    this.body = el("tbody");
    this.empty = el("tr", {}, el("td", { class: "empty", colspan: columns.length, text: empty }));
    this.more = el("p", { class: "more", hidden: true });
    this.table = el(
      "table",
      { role: "grid", "aria-label": label },
      el("colgroup", {}, ...widths),
      el("thead", {}, el("tr", {}, ...heads)),
      this.body,
    );
    scroll.append(this.table, this.more);
    scroll.addEventListener("scroll", () => this.#place(), { passive: true });
    new ResizeObserver(() => this.#place()).observe(scroll);
    for (const event of ["click", "focusin"]) this.body.addEventListener(event, ({ target }) => this.#choose(this.#keyOf(target)));
  }

  /** `more` says what there is that is not among them. */
  show(rows, more = "") {
    this.#rows = rows;
    if (this.#chosen !== null) {
      const at = rows.findIndex((row) => this.key(row) === this.#chosen);
      if (at >= 0) this.#chosenAt = at;
      // What was chosen is gone: the one in its place is.
      else this.#chosen = rows.length ? this.key(rows[Math.min(this.#chosenAt, rows.length - 1)]) : null;
    }
    setText(this.more, more);
    this.more.hidden = !more;
    setAttribute(this.table, "aria-rowcount", rows.length + 1);
    this.#place();
  }

  get chosen() {
    return this.#rows.find((row) => this.key(row) === this.#chosen) ?? null;
  }

  get hasFocus() {
    return this.scroll.contains(document.activeElement);
  }

  /** Chooses the row that is so many further, and goes there; with nothing chosen yet the first one. */
  move(by) {
    if (!this.#rows.length) return;
    const at = this.#chosen === null ? 0 : this.#chosenAt + by;
    const row = this.#rows[Math.min(this.#rows.length - 1, Math.max(0, at))];
    this.#choose(this.key(row));
    const top = this.#chosenAt * this.#height;
    const room = this.scroll.clientHeight - 2 * this.#height;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    if (top > this.scroll.scrollTop + room) this.scroll.scrollTop = top - room;
    this.#place();
    const chosen = this.#drawn.get(this.#chosen)?.row;
    chosen?.focus({ preventScroll: true });
    chosen?.scrollIntoView({ block: "nearest" });
  }

  get #height() {
    return this.body.querySelector("tr.row")?.getBoundingClientRect().height || USUAL_HEIGHT;
  }

  #keyOf(node) {
    const row = node.closest("tr.row");
    for (const [key, drawn] of this.#drawn) if (drawn.row === row) return key;
    return null;
  }

  #choose(key) {
    const at = this.#rows.findIndex((row) => this.key(row) === key);
    if (at < 0) return;
    this.#chosen = key;
    this.#chosenAt = at;
    this.#mark();
  }

  /** One row of them is where Tab goes. */
  #mark() {
    const stop = this.#drawn.has(this.#chosen) ? this.#chosen : this.#drawn.keys().next().value;
    for (const [key, { row }] of this.#drawn) {
      setAttribute(row, "aria-selected", String(key === this.#chosen));
      row.tabIndex = key === stop ? 0 : -1;
    }
  }

  /** Puts the rows in place that are in sight, each once, in their order. */
  #place() {
    const height = this.#height;
    const { scrollTop, clientHeight } = this.scroll;
    const from = Math.min(this.#rows.length, Math.max(0, Math.floor(scrollTop / height) - MARGIN));
    const to = Math.min(this.#rows.length, Math.ceil((scrollTop + clientHeight) / height) + MARGIN);
    const hadFocus = document.activeElement?.closest("tr.row")?.parentNode === this.body;
    const wanted = this.#rows.slice(from, to);
    const keys = new Set(wanted.map(this.key));
    for (const [key, { row }] of this.#drawn) {
      if (!keys.has(key)) {
        row.remove();
        this.#drawn.delete(key);
      }
    }
    const rows = wanted.map((row, i) => this.#draw(row, from + i));
    if (!rows.length) rows.push(this.empty);
    else this.empty.remove();
    this.#above.firstChild.style.height = `${from * height}px`;
    this.#below.firstChild.style.height = `${(this.#rows.length - to) * height}px`;
    [this.#above, ...rows, this.#below].forEach((row, i) => {
      if (this.body.children[i] !== row) this.body.insertBefore(row, this.body.children[i] ?? null);
    });
    this.#mark();
    if (hadFocus && !this.hasFocus) this.#drawn.get(this.#chosen)?.row.focus({ preventScroll: true });
  }

  #draw(row, index) {
    const key = this.key(row);
    let drawn = this.#drawn.get(key);
    if (!drawn) {
      const cells = this.columns.map((column) => el("td", { class: column.class }));
      this.#drawn.set(key, (drawn = { row: el("tr", {}, ...cells), cells }));
    }
    setAttribute(drawn.row, "class", `row ${this.rowClass(row)}`.trim());
    setAttribute(drawn.row, "aria-rowindex", index + 2);
    this.columns.forEach((column, i) => column.draw(drawn.cells[i], row));
    return drawn.row;
  }
}

function spacer() {
  return el("tr", { class: "spacer", "aria-hidden": "true" }, el("td"));
}

/** Writes text into a cell, and shows all of it to whoever points there. */
export function write(cell, text, title = text) {
  setText(cell, text);
  setAttribute(cell, "title", title || null);
}

/** The cell's contents, made once: what `make` returns is given to every `draw` of the same cell. */
export function once(cell, make) {
  if (!made.has(cell)) made.set(cell, make(cell));
  return made.get(cell);
}

const made = new WeakMap();
