// Two charts over the last five minutes, drawn as SVG in pixels: areas on top of each other, and lines on a logarithmic scale.
// Whoever points at them reads the values of that time in the legend.

import { el, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { KEPT_S } from "./history.js";

const HEIGHT = 176;
const LEFT = 44;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 20;
const MINUTES = [-5, -4, -3, -2, -1, 0];
const NARROW = 480;
// Five minutes, as a power of ten: brokers tell longer durations apart from shorter ones, and no further.
const LONGEST = Math.log10(300);

class Chart {
  #points = [];
  #now = 0;
  #pointed = null;

  /** `series` is [{name, label}] in the order of the legend; `shown` makes text of a value. */
  constructor(figure, series, { title, shown }) {
    this.series = series;
    this.shown = shown;
    this.title = title;
    this.svg = el("svg", { role: "img" });
    this.grid = el("g");
    this.drawn = el("g");
    this.cross = el("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.svg.append(this.grid, this.drawn, this.cross);
    this.values = new Map();
    const legend = el("figcaption", { class: "legend" });
    for (const { name, label } of series) {
      const value = el("b", { text: "–" });
      this.values.set(name, value);
      legend.append(el("span", {}, el("i", { class: `swatch ${name}`, "aria-hidden": "true" }), label, value));
    }
    figure.append(this.svg, legend);
    new ResizeObserver(() => this.draw(this.#points, this.#now)).observe(figure);
    this.svg.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.#point(null));
  }

  get width() {
    return Math.max(160, this.svg.clientWidth);
  }

  x(at) {
    return LEFT + (this.width - LEFT - RIGHT) * (1 + (at - this.#now) / KEPT_S);
  }

  y(share) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(1, Math.max(0, share)));
  }

  draw(points, now) {
    this.#points = points;
    this.#now = now;
    setAttribute(this.svg, "viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const ticks = this.scale(points);
    const rules = ticks.map(([share, text]) => [
      el("line", { class: "gridline", x1: LEFT, x2: this.width - RIGHT, y1: this.y(share), y2: this.y(share) }),
      el("text", { x: LEFT - 8, y: this.y(share) + 4, "text-anchor": "end", text }),
    ]);
    const times = MINUTES.filter((minute) => this.width > NARROW || minute % 2 === 0).map((minute) => {
      const anchor = minute === 0 ? "end" : minute === -5 ? "start" : "middle";
      const text = minute === 0 ? "now" : `${minute} min`.replace("-", "−");
      return el("text", { x: this.x(now + 60 * minute), y: HEIGHT - 4, "text-anchor": anchor, text });
    });
    this.grid.replaceChildren(...rules.flat(), ...times);
    this.drawn.replaceChildren(...this.shapes(points));
    this.#say();
  }

  /** Runs of points without a gap between them. */
  runs(points, has = () => true) {
    const runs = [];
    let run = null;
    for (const point of points) {
      if (!has(point)) run = null;
      else if (run === null || point.isGap) runs.push((run = [point]));
      else run.push(point);
    }
    return runs;
  }

  #point(x) {
    this.#pointed = x;
    this.#say();
  }

  #say() {
    let point = this.#points.at(-1);
    if (this.#pointed !== null && point) {
      const distance = (each) => Math.abs(this.x(each.at) - this.#pointed);
      point = this.#points.reduce((nearest, each) => (distance(each) < distance(nearest) ? each : nearest));
      const x = this.x(point.at);
      setAttribute(this.cross, "x1", x);
      setAttribute(this.cross, "x2", x);
    }
    setAttribute(this.cross, "visibility", this.#pointed !== null && point ? "visible" : "hidden");
    const said = [];
    for (const { name, label } of this.series) {
      const text = point ? this.shown(this.value(point, name)) : "–";
      setText(this.values.get(name), text);
      said.push(`${label} ${text}`);
    }
    setAttribute(this.svg, "aria-label", `${this.title}: ${said.join(", ")}`);
  }
}

/** Areas on top of each other: `value` is a rate, and all of them together are the whole. */
export class Areas extends Chart {
  #most = 1;

  value(point, name) {
    return point.rates.get(name) ?? 0;
  }

  scale(points) {
    const sums = points.map((point) => [...point.rates.values()].reduce((sum, each) => sum + each, 0));
    const step = Math.max(1, niceStep(Math.max(1, ...sums) / 3));
    this.#most = step * Math.ceil(Math.max(1, ...sums) / step);
    const ticks = [];
    for (let value = 0; value <= this.#most + step / 2; value += step) ticks.push([value / this.#most, count(value)]);
    return ticks;
  }

  shapes(points) {
    const shapes = [];
    for (const run of this.runs(points)) {
      let base = run.map(() => 0);
      for (const { name } of this.series) {
        if (!run.some((point) => this.value(point, name))) continue;
        const top = run.map((point, i) => base[i] + this.value(point, name));
        const place = (values) => run.map((point, i) => `${this.x(point.at).toFixed(1)} ${this.y(values[i] / this.#most).toFixed(1)}`);
        const d = `M${place(top).join("L")}L${place(base).reverse().join("L")}Z`;
        shapes.push(el("path", { class: `series-area ${name}`, fill: "currentColor", d }));
        base = top;
      }
    }
    return shapes;
  }
}

/** Lines of durations: a millisecond and ten seconds are both to be seen. */
export class Lines extends Chart {
  #from = -3;
  #to = 0;

  value(point, name) {
    return point[name];
  }

  scale(points) {
    const logs = points.flatMap((point) => this.series.map(({ name }) => point[name])).filter(Boolean).map(Math.log10);
    this.#from = logs.length ? Math.floor(Math.min(...logs)) : -3;
    this.#to = Math.min(LONGEST, Math.max(this.#from + 2, logs.length ? Math.ceil(Math.max(...logs)) : 0));
    const ticks = [];
    for (let power = this.#from; power <= this.#to; power += 1) ticks.push([this.#share(10 ** power), this.shown(10 ** power)]);
    return ticks;
  }

  #share(value) {
    return (Math.log10(value) - this.#from) / (this.#to - this.#from);
  }

  shapes(points) {
    return this.series.flatMap(({ name }) =>
      this.runs(points, (point) => point[name]).map((run) => {
        const places = run.map((point) => `${this.x(point.at).toFixed(1)} ${this.y(this.#share(point[name])).toFixed(1)}`);
        return el("path", { class: `series-line ${name}`, stroke: "currentColor", d: `M${places.join("L")}${run.length > 1 ? "" : "h0"}` });
      }),
    );
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((each) => each * power >= rough);
}
