// The page: overviews in, tables and charts out; and what somebody does with them.

import { Areas, Lines } from "./charts.js";
import { Clusters } from "./clusters.js";
import { Commands } from "./commands.js";
import { confirmCancel, confirmDrain, showHelp } from "./dialogs.js";
import { byId, setAttribute, setText, tell } from "./dom.js";
import { matches } from "./filter.js";
import { argv, count, elapsed, percent, rate, seconds, shortSeconds } from "./format.js";
import { History } from "./history.js";
import { listenToKeys } from "./keyboard.js";
import { errorShare, percentile } from "./rates.js";
import { Reasons } from "./reasons.js";
import { Replicas } from "./replicas.js";
import * as signing from "./signing.js";
import { Stages } from "./stages.js";
import { ask, Stream } from "./stream.js";
import { drawNotice, drawTotals, NOTHING } from "./totals.js";

const INTERVAL_S = 1;
// So long without an overview, and what is shown is old.
const STALE_S = 4;
const TICK_MS = 500;

const OUTCOMES = [
  { name: "exited", label: "exited" },
  { name: "cancelled", label: "cancelled" },
  { name: "refused", label: "refused" },
  { name: "rejected", label: "rejected" },
  { name: "timed_out", label: "timed out" },
  { name: "lost", label: "lost" },
];

const clock = () => performance.now() / 1000;

class Page {
  history = new History();
  overview = null;
  at = 0;
  lost = "";
  isPaused = false;
  key = "";
  stream = null;

  constructor() {
    this.commands = new Commands((row) => this.cancel(row));
    this.clusters = new Clusters({ open: (row) => this.filterBy(row.cluster_id), changed: () => this.draw() });
    this.replicas = new Replicas((row) => this.drain(row));
    this.reasons = new Reasons();
    this.throughput = new Areas(byId("throughput"), OUTCOMES, { title: "Commands a second", shown: rate });
    const percentiles = ["p50", "p95", "p99"].map((name) => ({ name, label: name }));
    this.latency = new Lines(byId("latency"), percentiles, { title: "Latency", shown: shortSeconds });
    this.stages = new Stages(byId("stages"));
    this.tables = [this.commands.table, this.clusters.table, this.replicas.table];
    setInterval(() => this.tick(), TICK_MS);
  }

  // The key, and the stream that it opens

  begin(key) {
    this.key = key;
    this.history = new History();
    this.overview = null;
    this.lost = "";
    this.pause(false);
    signing.show();
    this.showState();
    const stream = new Stream(key, INTERVAL_S, {
      overview: (overview) => this.stream === stream && this.take(overview),
      lost: (why) => this.stream === stream && this.lose(why),
      refused: (refusal) => this.stream === stream && this.end(whyNot(refusal)),
    });
    this.stream = stream;
    void stream.run();
  }

  end(why = "") {
    this.stream?.stop();
    this.isPaused = false;
    this.stream = null;
    this.key = "";
    // Whoever comes next must not find it in the page.
    this.commands.forget();
    this.take(NOTHING);
    this.overview = null;
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    signing.ask(why);
  }

  // What comes

  take(overview) {
    this.lost = "";
    this.overview = overview;
    this.at = clock();
    this.history.take(overview, this.at, INTERVAL_S);
    this.commands.take(overview, this.at);
    this.clusters.take(overview);
    this.replicas.take(overview, this.at);
    if (!this.isPaused) this.draw();
    this.showState();
  }

  lose(why) {
    this.lost = why;
    this.showState();
  }

  tick() {
    if (this.stream === null) return;
    this.showState();
    if (this.overview && !this.isPaused && !this.isStale) this.commands.draw(this.matches, clock());
  }

  get age() {
    return clock() - this.at;
  }

  get isStale() {
    return this.overview !== null && this.age > STALE_S;
  }

  // What is shown

  draw() {
    const { overview } = this;
    if (overview === null) return;
    this.drawFigures(overview.is_whole);
    drawTotals(overview);
    this.commands.draw(this.matches, this.isStale ? this.at : clock());
    this.clusters.draw(this.matches);
    this.replicas.draw(this.matches);
    drawNotice(overview);
  }

  drawFigures(isWhole) {
    byId("figures").hidden = !isWhole;
    const minute = this.history.over(60);
    for (const [id, share] of [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]]) {
      setText(byId(id), seconds(percentile(minute.total, share)).join(" ").trim());
    }
    setText(byId("rate"), rate(isWhole ? this.history.rate : null));
    setText(byId("errors"), percent(errorShare(minute)));
    if (!isWhole) return;
    this.throughput.draw(this.history.points, this.at);
    this.latency.draw(this.history.points, this.at);
    this.stages.draw(minute);
    this.reasons.draw(minute, this.history.over(300));
  }

  showState() {
    let [state, text] = ["live", `live, by ${this.overview?.replica_id}`];
    if (this.overview === null) [state, text] = this.lost ? ["lost", `no connection: ${this.lost}`] : ["wait", "connecting"];
    else if (this.isStale) [state, text] = ["stale", `stale for ${elapsed(Math.floor(this.age))}${this.lost ? `: ${this.lost}` : ""}`];
    else if (this.isPaused) [state, text] = ["paused", "paused"];
    setAttribute(byId("state"), "data-state", state);
    setText(byId("state-text"), text);
    byId("content").classList.toggle("stale", this.isStale);
  }

  // What somebody does

  matches = (row) => matches(row, byId("filter").value);

  filterBy(text) {
    byId("filter").value = text;
    this.draw();
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    setAttribute(byId("pause"), "aria-pressed", String(isPaused));
    setText(byId("pause"), isPaused ? "Go on" : "Pause");
    if (!isPaused) this.draw();
    this.showState();
  }

  nextTheme() {
    window.openlineTheme.next();
    showTheme();
  }

  async cancel(row) {
    if (!(await confirmCancel(row))) return;
    await this.do(async () => {
      const { state } = await ask(this.key, "DELETE", `v1/commands/${encodeURIComponent(row.command_id)}`);
      tell(state === "done" ? "It had ended already." : `Cancelling ${argv(row.argv)}`);
    });
  }

  async drain(row) {
    const how = await confirmDrain(row);
    if (how === null) return;
    await this.do(async () => {
      const { executors } = await ask(this.key, "POST", "admin/drain", { replica_id: row.replica_id, ...how });
      tell(`${row.replica_id} is drained: ${count(executors)} ${executors === 1 ? "executor is" : "executors are"} told to move.`);
    });
  }

  /** Does it, and says what was in the way. */
  async do(action) {
    const { stream } = this;
    try {
      await action();
    } catch (failure) {
      // Whoever has signed out meanwhile is told nothing.
      if (stream === this.stream) tell(failure.status ? failure.message : "The gateway does not answer.", { bad: true });
    }
  }
}

function whyNot(refusal) {
  if (refusal.status === 403) return "This key lacks the scope admin.";
  return "This key is not known: it is wrong, has expired, or was revoked.";
}

function showTheme() {
  setText(byId("theme"), `Theme: ${window.openlineTheme.current}`);
}

const page = new Page();

byId("filter").addEventListener("input", () => page.draw());
byId("filter").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  page.filterBy("");
  byId("filter").blur();
});
byId("pause").addEventListener("click", () => page.pause(!page.isPaused));
byId("theme").addEventListener("click", () => page.nextTheme());
byId("help").addEventListener("click", () => void showHelp());
byId("sign-out").addEventListener("click", () => page.end());
listenToKeys(page);
showTheme();

signing.start((key) => page.begin(key));
