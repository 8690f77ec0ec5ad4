// The last five minutes, as far as this page has seen them: steps between overviews, and a point of each chart for each.

import { all, byOutcome, Differences, percentile, together } from "./rates.js";

export const KEPT_S = 300;
// A single second of a quiet installation has a command or two: rates and percentiles are of some seconds together.
const RATE_OVER_S = 3;
const LATENCY_OVER_S = 15;
const NOW_OVER_S = 5;

export class History {
  #differences = new Differences();
  #steps = []; // {at, step}, oldest first; `at` in seconds of the page's own clock.
  #at = null;
  points = []; // {at, rates: Map, p50, p95, p99, isGap}

  /** `at` in seconds; `intervalS` is how far apart overviews are as a rule. */
  take(overview, at, intervalS) {
    const s = this.#at === null ? 0 : at - this.#at;
    const isGap = s > 3 * intervalS + 1;
    this.#at = at;
    const step = this.#differences.take(overview, s);
    if (step === null) return;
    this.#steps.push({ at, step });
    const rates = this.over(RATE_OVER_S);
    const latency = this.over(LATENCY_OVER_S).total;
    this.points.push({
      at,
      isGap,
      rates: new Map([...byOutcome(rates)].map(([outcome, n]) => [outcome, n / rates.s])),
      p50: percentile(latency, 0.5),
      p95: percentile(latency, 0.95),
      p99: percentile(latency, 0.99),
    });
    const oldest = at - KEPT_S;
    while (this.#steps.length && this.#steps[0].at < oldest) this.#steps.shift();
    while (this.points.length && this.points[0].at < oldest) this.points.shift();
  }

  /** What has happened within the last so many seconds. */
  over(s) {
    const steps = [];
    for (let i = this.#steps.length - 1; i >= 0; i -= 1) {
      if (this.#steps[i].at <= this.#at - s && steps.length) break;
      steps.push(this.#steps[i].step);
    }
    return together(steps);
  }

  /** Commands a second, now; null until that is known. */
  get rate() {
    const now = this.over(NOW_OVER_S);
    return now.s ? all(now) / now.s : null;
  }
}
