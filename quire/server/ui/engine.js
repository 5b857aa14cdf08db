// The live view of the engine: opens the stream of snapshots while somebody looks, and shows each.

import { BlockMap } from "./blockmap.js";
import { Chart } from "./chart.js";
import { colourOf, RequestList } from "./requests.js";
import { authorization, bytes, count, duration, element, events, rate, storedKey } from "./util.js";

const RETRY_MS = 2000;
const FROM_EACH = ["held", "shared", "cached", "free"];

// The mean of what a histogram took in between two snapshots; null if nothing.
function meanBetween(now, before) {
  if (!now || !before) return null;
  const added = now.count - before.count;
  return added > 0 ? (now.sum - before.sum) / added : null;
}

export class Engine {
  constructor() {
    this.model = "";
    this.last = null;
    this.aborter = null;
    this.timer = 0;
    this.maps = [];
    this.requests = new RequestList(element("requests"));
    const chart = (name, format) => new Chart(element(`chart-${name}`), { format });
    this.charts = {
      rate: chart("rate", (value) => `${rate(value)} tokens/s`),
      ttft: chart("ttft", duration),
      itl: chart("itl", duration),
    };
    document.addEventListener("visibilitychange", () => this.reconnect());
    for (const name of ["resize", "themechange"]) addEventListener(name, () => this.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  start() {
    this.reconnect();
  }

  reconnect() {
    clearTimeout(this.timer);
    this.aborter?.abort();
    this.aborter = null;
    if (document.visibilityState !== "hidden") this.follow();
  }

  async follow() {
    const aborter = (this.aborter = new AbortController());
    const options = { headers: authorization(storedKey()), signal: aborter.signal };
    let problem = "The server has ended.";
    try {
      for await (const snapshot of events("ui/live", options)) this.take(snapshot);
    } catch (error) {
      problem = error.status === 401
        ? "The server wants an API key: give it in the settings of the chat."
        : "The server cannot be reached. Trying again.";
    }
    if (aborter.signal.aborted) return;
    this.notice(problem);
    this.lamp("dead", "");
    this.last = null;
    this.timer = setTimeout(() => this.reconnect(), RETRY_MS);
  }

  notice(text) {
    element("engine-notice").textContent = text;
    element("engine-notice").hidden = !text;
  }

  lamp(state, text) {
    element("lamp").className = `lamp ${state}`;
    element("phase").textContent = text;
  }

  take(now) {
    this.model = now.model;
    element("model").textContent = now.model;
    document.title = `${now.model} · Quire`;
    if (now.phase === "ready") this.lamp("ready", "");
    else this.lamp("", `${now.phase}${now.percent >= 0 ? ` ${now.percent}%` : ""}`);
    this.notice(now.phase === "ready" ? "" : `The engine is not ready: ${now.phase}.`);
    if (now.stats) this.takeStats(now, this.last?.stats ? this.last : null);
    if (now.engine) this.takeEngine(now);
    this.last = now;
  }

  takeStats(now, before) {
    const { stats } = now;
    element("running").textContent = count(stats.num_running ?? 0);
    element("waiting").textContent = count(stats.num_waiting ?? 0);
    const usage = 100 * (stats.cache_usage ?? 0);
    element("usage").textContent = `${usage > 0 && usage < 0.1 ? "< 0.1" : usage.toFixed(usage < 10 ? 1 : 0)}%`;
    const queries = stats.prefix_queries ?? 0;
    element("hits").textContent = queries ? `${Math.round((100 * (stats.prefix_hits ?? 0)) / queries)}%` : "–";
    if (!before) return;
    const between = (name) => (stats[name] ?? 0) - (before.stats[name] ?? 0);
    const seconds = now.at_s - before.at_s;
    const tokens = Math.max(0, between("generation_tokens")) / seconds;
    element("rate").textContent = rate(tokens);
    const steps = between("steps");
    element("step").textContent = steps > 0 ? duration(between("step_s") / steps) : "–";
    this.chart("rate", "now-output", tokens);
    this.chart("ttft", "now-ttft", meanBetween(now.ttft, before.ttft));
    this.chart("itl", "now-itl", meanBetween(now.itl, before.itl));
  }

  chart(name, label, value) {
    this.charts[name].push(value);
    element(label).textContent = value === null ? "" : this.charts[name].format(value);
  }

  takeEngine(now) {
    const { caches, requests, more } = now.engine;
    while (this.maps.length < caches.length) this.maps.push(new BlockMap(element("maps"), colourOf));
    const counts = { held: 0, shared: 0, cached: 0, free: 0 };
    caches.forEach((cache, place) => {
      this.maps[place].take(cache, caches.length > 1);
      for (const name of FROM_EACH) counts[name] += this.maps[place].counts[name];
    });
    for (const name of FROM_EACH) element(`cells-${name}`).textContent = count(counts[name]);
    const [first] = caches;
    element("map-about").textContent =
      `${count(first.num_blocks)} blocks of ${first.block_size} tokens · ${bytes(now.info.cache_bytes)}` +
      (first.blocks_per_cell > 1 ? ` · a cell is ${first.blocks_per_cell} blocks` : "");
    this.requests.take(requests, more);
    element("requests-about").textContent = more ? `and ${count(more)} more` : "";
  }

  redraw() {
    this.maps.forEach((map) => map.draw());
    this.requests.draw();
    Object.values(this.charts).forEach((chart) => chart.draw());
  }
}
