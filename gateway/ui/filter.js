// Which rows are wanted: those that have all of some words, wherever.

import { argv } from "./format.js";

export function matches(row, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return true;
  const executors = Array.isArray(row.executors) ? row.executors.flatMap((each) => [each.executor_id, each.replica_id]) : [];
  const ids = [row.command_id, row.correlation_id, row.session_id, row.executor_id, row.replica_id, row.address];
  const named = [row.cluster_id, row.owner, ...ids, ...executors, row.argv ? argv(row.argv) : ""].join(" ").toLowerCase();
  return words.every((word) => named.includes(word));
}
