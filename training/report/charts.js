"use strict";

const MARGIN = { left: 56, right: 12, top: 8, bottom: 36 };
const CHART_HEIGHT = 240;
const COLOURS = 6; // further curves have them again, dashed

/** Round numbers in [low, high], about `count` intervals apart: of the steps 1, 2, 5, 10, ... the one that comes nearest to that. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const miss = (step) => Math.abs((high - low) / step - count);
  const step = [1, 2, 5, 10].map((factor) => factor * power).reduce((best, candidate) => (miss(candidate) < miss(best) ? candidate : best));
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index++) found.push(Number((index * step).toPrecision(12)));
  return found;
}

/** Round numbers in [10^low, 10^high], as their logarithms: 1, 2, 5 of every decade, or powers of ten where there are many. */
function logTicks(low, high) {
  const found = [];
  const many = high - low > 3;
  const stride = Math.max(Math.ceil((high - low) / 8), 1);
  for (let decade = Math.floor(low); decade <= high; decade++) {
    if (many && decade % stride) continue;
    for (const factor of many ? [1] : [1, 2, 5]) found.push(decade + Math.log10(factor));
  }
  const inside = found.filter((level) => level >= low && level <= high);
  return inside.length > 1 ? inside : ticks(low, high, 5);
}

/** A line chart over kimg: axes, curves, a legend that switches curves, and a cursor for pointer and arrow keys. */
class Chart {
  constructor(chart) {
    this.series = chart.series.map((series, index) => ({ ...series, colour: `var(--series-${index % COLOURS})`, again: index >= COLOURS, shown: true }));
    this.xs = [...new Set(this.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b);
    this.cursor = null;
    this.log = false;
    this.svg = make("svg", { tabindex: 0, role: "img", "aria-label": `${chart.title} over thousands of images; arrow keys read the values` });
    this.reading = make("div", { class: "reading", "aria-live": "polite" });
    this.element = make("figure", { class: "chart" }, make("h3", {}, chart.title), this.svg, this.reading, this.legend());
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && document.activeElement !== this.svg && this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  legend() {
    const buttons = this.series.map((series) => {
      return make("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
        series.shown = !series.shown;
        event.currentTarget.setAttribute("aria-pressed", String(series.shown));
        event.currentTarget.classList.toggle("off", !series.shown);
        this.draw();
      } }, this.chip(series), series.name);
    });
    const positive = this.series.every((series) => series.points.every((point) => point[1] > 0));
    const log = make("button", { type: "button", "aria-pressed": "false", onclick: (event) => {
      this.log = !this.log;
      event.currentTarget.setAttribute("aria-pressed", String(this.log));
      this.draw();
    } }, "log scale");
    return make("div", { class: "row" }, ...buttons, positive ? log : null);
  }

  /** What stands for a series beside its name: hollow where its curve is dashed. */
  chip(series) {
    return make("span", { class: "chip", style: `background: ${series.again ? "none" : series.colour}; border: 2px solid ${series.colour}` });
  }

  /** Value to vertical position before scaling. */
  level(value) {
    return this.log ? Math.log10(value) : value;
  }

  ranges() {
    const points = this.series.filter((series) => series.shown).flatMap((series) => series.points);
    const levels = points.map((point) => this.level(point[1]));
    let [low, high] = levels.length ? [Math.min(...levels), Math.max(...levels)] : [0, 1];
    if (high - low <= 1e-9 * Math.abs(low)) [low, high] = [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5];
    const space = (high - low) * 0.05;
    let [first, last] = [this.xs[0], this.xs[this.xs.length - 1]];
    if (last - first < 1e-9) [first, last] = [Math.max(first - 0.5, 0), last + 0.5];
    return { low: low - space, high: high + space, first, last };
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width) return;
    const { low, high, first, last } = this.ranges();
    const [inner, depth] = [width - MARGIN.left - MARGIN.right, CHART_HEIGHT - MARGIN.top - MARGIN.bottom];
    this.x = (value) => MARGIN.left + ((value - first) / (last - first)) * inner;
    this.y = (value) => MARGIN.top + (1 - (this.level(value) - low) / (high - low)) * depth;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${CHART_HEIGHT}`);
    this.svg.replaceChildren(...this.axes(low, high, first, last, width), ...this.curves());
    this.mark = make("g", {});
    this.svg.append(this.mark);
    this.move(this.cursor);
  }

  axes(low, high, first, last, width) {
    const bottom = CHART_HEIGHT - MARGIN.bottom;
    const parts = [];
    const levels = this.log ? logTicks(low, high) : ticks(low, high, 5);
    const texts = told(levels.map((level) => (this.log ? Math.pow(10, level) : level)));
    for (const [index, level] of levels.entries()) {
      const y = MARGIN.top + (1 - (level - low) / (high - low)) * (bottom - MARGIN.top);
      parts.push(make("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      parts.push(make("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, texts[index]));
    }
    for (const value of ticks(first, last, Math.max(Math.floor(width / 110), 2))) {
      parts.push(make("line", { class: "grid", x1: this.x(value), x2: this.x(value), y1: bottom, y2: bottom + 4 }));
      parts.push(make("text", { x: this.x(value), y: bottom + 17, "text-anchor": "middle" }, brief(value)));
    }
    parts.push(make("text", { x: width - MARGIN.right, y: CHART_HEIGHT - 4, "text-anchor": "end" }, "kimg"));
    return parts;
  }

  curves() {
    const parts = [];
    for (const series of this.series.filter((candidate) => candidate.shown)) {
      const places = series.points.map((point) => `${this.x(point[0]).toFixed(1)},${this.y(point[1]).toFixed(1)}`);
      parts.push(make("path", { class: "curve", d: "M" + places.join("L"), style: `stroke: ${series.colour}; stroke-dasharray: ${series.again ? "6 4" : "none"}` }));
      if (places.length < 3) parts.push(...series.points.map((point) => this.dot(series, point)));
    }
    return parts;
  }

  dot(series, point) {
    return make("circle", { cx: this.x(point[0]), cy: this.y(point[1]), r: 4, style: `fill: ${series.again ? "var(--card)" : series.colour}; stroke: ${series.colour}; stroke-width: 2` });
  }

  point(event) {
    if (!this.x) return;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const distances = this.xs.map((value) => Math.abs(this.x(value) - x));
    this.move(distances.indexOf(Math.min(...distances)));
  }

  key(event) {
    const last = this.xs.length - 1;
    const now = this.cursor === null ? last : this.cursor;
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: Math.max(now - step, 0), ArrowRight: Math.min(now + step, last), Home: 0, End: last, Escape: null };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.move(moves[event.key]);
  }

  /** Put the cursor on the index of an x value, or nowhere (null), and read the values there. */
  move(index) {
    this.cursor = index;
    if (!this.mark) return;
    this.mark.replaceChildren();
    this.reading.replaceChildren();
    if (index === null) return;
    const value = this.xs[index];
    this.mark.append(make("line", { class: "cursor", x1: this.x(value), x2: this.x(value), y1: MARGIN.top, y2: CHART_HEIGHT - MARGIN.bottom }));
    this.reading.append(make("span", {}, `${value} kimg`));
    for (const series of this.series.filter((candidate) => candidate.shown)) {
      const point = series.points.find((candidate) => candidate[0] === value);
      if (!point) continue;
      this.mark.append(this.dot(series, point));
      this.reading.append(make("span", {}, this.chip(series), `${series.name} ${brief(point[1])}`));
    }
  }
}
