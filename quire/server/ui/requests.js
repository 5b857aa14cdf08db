// The list of live requests, each with the colour that its blocks have in the map.

import { count, element, make } from "./util.js";

const GOLDEN_ANGLE = 137.508;
const MAX_SHOWN = 64;

function isDark() {
  return getComputedStyle(element("log")).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
}

// Neighbouring numbers get colours that are far apart, all of one lightness.
export function colourOf(number) {
  const hue = (25 + number * GOLDEN_ANGLE) % 360;
  return `oklch(${isDark() ? 0.74 : 0.66} 0.125 ${hue.toFixed(1)})`;
}

function track(weight, share) {
  const filled = make("b");
  filled.style.width = `${Math.round(100 * Math.min(1, share))}%`;
  const bar = make("span", {}, filled);
  bar.style.flexGrow = weight;
  return bar;
}

function row(request) {
  const chip = make("i");
  const colour = request.state === "running" ? colourOf(request.number) : "var(--cell-cached)";
  chip.style.background = colour;
  const bars = make("span", { class: "track", "aria-hidden": "true" });
  bars.style.color = colour;
  bars.append(track(1, request.computed / request.prompt));
  bars.append(track(2, request.max_output ? request.output / request.max_output : 1));
  const text = `${count(request.prompt)} + ${count(request.output)}`;
  const title =
    `${request.prompt} prompt tokens, ${request.computed} of them computed, ${request.cached} found in the cache; ` +
    `${request.output} tokens of at most ${request.max_output}; ${request.blocks} blocks`;
  return make(
    "li",
    { class: request.state, title },
    chip,
    make("span", {}, `#${request.number}`),
    make("span", {}, request.state),
    bars,
    make("span", { class: "count" }, text),
  );
}

export class RequestList {
  constructor(node) {
    this.node = node;
    this.requests = [];
  }

  take(requests) {
    this.requests = requests;
    this.draw();
  }

  draw() {
    const rows = this.requests.slice(0, MAX_SHOWN).map(row);
    if (!rows.length) rows.push(make("li", { class: "none" }, "None now."));
    this.node.replaceChildren(...rows);
  }
}
