// A line over the last two minutes.

import { fitted, inkOf } from "./canvas.js";

const SAMPLES = 240;
const HEIGHT = 64;
const TOP = 6;
const BOTTOM = 4;

// The least of 1, 2, 5, 10, 20 … that is not below the value.
function roundUp(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * scale).find((step) => step >= value * 0.999);
}

export class Chart {
  constructor(canvas, { format }) {
    this.canvas = canvas;
    this.format = format;
    this.values = [];
  }

  // null where there was nothing to measure.
  push(value) {
    this.values.push(value);
    if (this.values.length > SAMPLES) this.values.shift();
    this.draw();
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const pen = fitted(this.canvas, width, HEIGHT);
    const known = this.values.filter((value) => value !== null);
    const most = Math.max(0, ...known);
    const top = most > 0 ? roundUp(most) : 0;
    this.grid(pen, width, top);
    const points = this.points(width, top);
    if (points.length) this.line(pen, points);
    const latest = known.length ? this.format(known.at(-1)) : "nothing yet";
    this.canvas.setAttribute("aria-label", `Over the last two minutes; latest: ${latest}`);
  }

  points(width, top) {
    const step = width / (SAMPLES - 1);
    const begin = SAMPLES - this.values.length;
    const found = [];
    this.values.forEach((value, place) => {
      if (value === null) return;
      const y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (top ? value / top : 0);
      found.push([(begin + place) * step, y]);
    });
    return found;
  }

  grid(pen, width, top) {
    pen.strokeStyle = inkOf("--line");
    pen.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share) + 0.5;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
    }
    if (!top) return;
    pen.fillStyle = inkOf("--faint");
    pen.font = `10.5px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "top";
    pen.fillText(this.format(top), 2, TOP + 3);
  }

  line(pen, points) {
    const colour = inkOf("--accent");
    const trace = () => {
      pen.beginPath();
      points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    };
    trace();
    pen.lineTo(points.at(-1)[0], HEIGHT - BOTTOM);
    pen.lineTo(points[0][0], HEIGHT - BOTTOM);
    pen.globalAlpha = 0.1;
    pen.fillStyle = colour;
    pen.fill();
    pen.globalAlpha = 1;
    trace();
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    pen.strokeStyle = colour;
    pen.stroke();
    const [x, y] = points.at(-1);
    pen.beginPath();
    pen.arc(Math.min(x, this.canvas.clientWidth - 3), y, 2.5, 0, 2 * Math.PI);
    pen.fillStyle = colour;
    pen.fill();
  }
}
