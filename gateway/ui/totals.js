// The numbers on top that need no history, and what an operator should know before anything else.

import { byId, setText } from "./dom.js";
import { count } from "./format.js";
import { inFlight } from "./replicas.js";

/** An overview of an installation without anything. */
export const NOTHING = {
  at: "1970-01-01T00:00:00Z",
  replica_id: "",
  is_whole: false,
  replicas: [],
  clusters: [],
  more_clusters: 0,
  connected_clusters: 0,
  active_clusters: 0,
  commands: [],
  more_commands: 0,
  ended: [],
};

export function drawTotals(overview) {
  const states = (names) =>
    overview.replicas.reduce((sum, row) => sum + names.reduce((n, name) => n + (row.in_flight[name] ?? 0), 0), 0);
  const total = overview.replicas.reduce((sum, row) => sum + inFlight(row), 0);
  setText(byId("in-flight"), count(total));
  setText(byId("in-flight-note"), `${count(states(["running"]))} running, ${count(states(["queued"]))} waiting`);
  const clusters = overview.clusters.length + overview.more_clusters;
  setText(byId("clusters-up"), `${count(overview.connected_clusters)} / ${count(clusters)}`);
  setText(byId("clusters-note"), `connected, ${count(overview.active_clusters)} active`);
  const answering = overview.replicas.filter((row) => row.is_reachable).length;
  setText(byId("replicas-up"), `${count(answering)} / ${count(overview.replicas.length)}`);
  const executors = overview.replicas.reduce((sum, row) => sum + row.executors, 0);
  setText(byId("replicas-note"), `answer, ${count(executors)} ${executors === 1 ? "executor" : "executors"}`);
}

/** Above everything else, while there is something to say. */
export function drawNotice(overview) {
  const notices = [];
  const silent = overview.replicas.filter((row) => !row.is_reachable).map((row) => row.replica_id || row.address);
  if (silent.length) notices.push(`${silent.join(", ")} ${silent.length === 1 ? "does" : "do"} not answer.`);
  const degraded = overview.replicas.filter((row) => row.figures?.is_redis_degraded);
  if (degraded.length) notices.push("Redis does not take writes: results are kept in memory, and lists and new sessions are refused.");
  if (!overview.is_whole) notices.push("This key sees some clusters only. Rates and latency are counted over all of them, and are not shown to it.");
  setText(byId("notice"), notices.join(" "));
  byId("notice").hidden = !notices.length;
}
