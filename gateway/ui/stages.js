// Where the time of a command goes: one bar, and a number for each stage of its way.

import { el, setAttribute, setText } from "./dom.js";
import { percent, shortSeconds } from "./format.js";
import { mean } from "./rates.js";

const STAGES = [
  ["queue", "queue", "waiting for a place"],
  ["route", "route", "deciding where, and the hop"],
  ["deliver", "deliver", "to the executor and back"],
  ["run", "run", "kubectl itself"],
  ["return", "return", "until its output was sent"],
];
const WIDTH = 1000;

export class Stages {
  #parts = new Map();

  constructor(figure) {
    this.svg = el("svg", { class: "stage-bar", role: "img", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none" });
    const list = el("dl");
    for (const [name, label, what] of STAGES) {
      const rect = el("rect", { class: name, y: 0, height: 10, width: 0 });
      const value = el("span", { text: "–" });
      const share = el("small", { text: "\u00a0" });
      this.#parts.set(name, { rect, value, share });
      this.svg.append(rect);
      const term = el("dt", {}, el("i", { class: `swatch ${name}`, "aria-hidden": "true" }), el("span", { text: label }));
      list.append(el("div", { title: what }, term, el("dd", {}, value, share)));
    }
    figure.append(this.svg, list);
  }

  /** Of a step with `stages`. */
  draw(step) {
    const means = STAGES.map(([name]) => mean(step.stages.get(name)));
    const sum = means.reduce((total, each) => total + (each ?? 0), 0);
    let x = 0;
    STAGES.forEach(([name], i) => {
      const { rect, value, share } = this.#parts.get(name);
      const width = sum ? (WIDTH * (means[i] ?? 0)) / sum : 0;
      setAttribute(rect, "x", x.toFixed(2));
      setAttribute(rect, "width", width.toFixed(2));
      x += width;
      setText(value, shortSeconds(means[i]));
      setText(share, sum && means[i] !== null ? percent(means[i] / sum) : "\u00a0");
    });
    const said = STAGES.map(([, label], i) => `${label} ${shortSeconds(means[i])}`).join(", ");
    setAttribute(this.svg, "aria-label", `Mean time by stage: ${said}`);
  }
}
