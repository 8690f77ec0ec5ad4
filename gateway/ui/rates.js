// Rates and percentiles from totals. Pure: each replica says what it has counted since its start, and the difference of
// two looks is what happened between them. What was missed costs nothing, and a replica that was restarted begins anew.

// So long the totals of a replica are kept that is not told of: it may be frozen, or unknown to the one that is asked.
const FORGOTTEN_AFTER_S = 300;
const STAGES = ["queue", "route", "deliver", "run", "return"];

/** What happened between two looks: ends by outcome and reason, and histograms. Empty to begin with. */
export function nothing() {
  return { s: 0, ends: new Map(), total: noDurations(), stages: new Map(STAGES.map((stage) => [stage, noDurations()])) };
}

function noDurations() {
  return { counts: new Map(), sum_s: 0, n: 0 };
}

/** Follows overviews; knows for each replica what it said last. */
export class Differences {
  #last = new Map(); // by replica and start: {figures, at}
  #now = 0; // seconds of all looks

  /** What has happened since the overview before, `s` seconds ago; null for the first one. */
  take(overview, s) {
    const step = nothing();
    step.s = s;
    const isFirst = this.#last.size === 0;
    this.#now += s;
    for (const replica of overview.replicas) {
      if (!replica.figures) continue;
      const name = `${replica.replica_id} ${replica.started_at}`;
      const before = this.#last.get(name);
      this.#last.set(name, { figures: replica.figures, at: this.#now });
      // One that was just started has counted from zero; one that is just seen for the first time may have for days.
      if (before) addDifference(step, before.figures, replica.figures);
    }
    for (const [name, { at }] of this.#last) if (at < this.#now - FORGOTTEN_AFTER_S) this.#last.delete(name);
    return isFirst ? null : step;
  }
}

const endName = (end) => `${end.outcome} ${end.reason ?? ""}`;

function addDifference(step, before, now) {
  const ends = new Map();
  for (const end of before.ends) ends.set(endName(end) + end.is_agent_call, end.count);
  for (const end of now.ends) {
    const n = Math.max(0, end.count - (ends.get(endName(end) + end.is_agent_call) ?? 0));
    if (n) step.ends.set(endName(end), (step.ends.get(endName(end)) ?? 0) + n);
  }
  addDurations(step.total, now.total, before.total);
  for (const [stage, durations] of step.stages) {
    if (now.stages[stage] && before.stages[stage]) addDurations(durations, now.stages[stage], before.stages[stage]);
  }
}

/** What was counted between two histograms of the same replica. */
export function between(before, now) {
  const durations = noDurations();
  addDurations(durations, now, before);
  return durations;
}

function addDurations(to, now, before) {
  now.counts.forEach((counted, i) => {
    const n = Math.max(0, counted - (before.counts[i] ?? 0));
    const bound = now.bounds_s[i] ?? Infinity;
    to.counts.set(bound, (to.counts.get(bound) ?? 0) + n);
    to.n += n;
  });
  to.sum_s += Math.max(0, now.sum_s - before.sum_s);
}

/** Several steps as one. */
export function together(steps) {
  const all = nothing();
  for (const step of steps) {
    all.s += step.s;
    for (const [name, n] of step.ends) all.ends.set(name, (all.ends.get(name) ?? 0) + n);
    merge(all.total, step.total);
    for (const [stage, durations] of step.stages) merge(all.stages.get(stage), durations);
  }
  return all;
}

function merge(to, from) {
  for (const [bound, n] of from.counts) to.counts.set(bound, (to.counts.get(bound) ?? 0) + n);
  to.n += from.n;
  to.sum_s += from.sum_s;
}

/** The duration that a share of all is not above, as near as the histogram's bounds tell; null without any. */
export function percentile(durations, share) {
  if (!durations.n) return null;
  const wanted = share * durations.n;
  let below = 0;
  let lower = 0;
  for (const bound of [...durations.counts.keys()].sort((a, b) => a - b)) {
    const n = durations.counts.get(bound);
    // Of those above all bounds nothing is known but that.
    if (n && below + n >= wanted) return bound === Infinity ? lower : lower + (bound - lower) * ((wanted - below) / n);
    below += n;
    if (bound !== Infinity) lower = bound;
  }
  return lower;
}

export function byOutcome(step) {
  const outcomes = new Map();
  for (const [name, n] of step.ends) {
    const outcome = name.split(" ", 1)[0];
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + n);
  }
  return outcomes;
}

export function all(step) {
  let n = 0;
  for (const each of step.ends.values()) n += each;
  return n;
}

/** The share of what was asked that has no exit code and was not cancelled; null when nothing was asked. */
export function errorShare(step) {
  const outcomes = byOutcome(step);
  const n = all(step);
  return n ? 1 - ((outcomes.get("exited") ?? 0) + (outcomes.get("cancelled") ?? 0)) / n : null;
}

export const mean = (durations) => (durations.n ? durations.sum_s / durations.n : null);
