// The blocks of one cache group as a field of cells, coloured by who holds them.

import { fitted, inkOf } from "./canvas.js";
import { count, make } from "./util.js";

const SHARED = 0x8000;
const CACHED = 1;
const HELD = 2;
const COLUMNS = [32, 64, 96, 128];
const AREA_PX = 220;

function cellsOf(text) {
  const raw = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const view = new DataView(raw.buffer);
  return Uint16Array.from({ length: raw.length / 2 }, (_, place) => view.getUint16(2 * place, true));
}

export class BlockMap {
  constructor(parent, colourOf) {
    this.colourOf = colourOf;
    this.cells = new Uint16Array();
    this.counts = { held: 0, shared: 0, cached: 0, free: 0 };
    this.title = make("p", { hidden: "" });
    this.canvas = make("canvas", { role: "img" });
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    parent.append(this.title, this.canvas);
  }

  take(cache, isOneOfMany) {
    this.cache = cache;
    this.cells = cellsOf(cache.cells);
    this.title.hidden = !isOneOfMany;
    this.title.textContent = `${cache.kind.replace("_", " ")} · ${count(cache.num_blocks)} blocks`;
    const counts = { held: 0, shared: 0, cached: 0, free: 0 };
    for (const cell of this.cells) {
      if (cell & SHARED) counts.shared += 1;
      else if (cell >= HELD) counts.held += 1;
      else if (cell === CACHED) counts.cached += 1;
      else counts.free += 1;
    }
    this.counts = counts;
    this.canvas.setAttribute(
      "aria-label",
      `Cells of the cache: ${counts.held} in use, ${counts.shared} shared, ${counts.cached} cached, ${counts.free} free`,
    );
    this.draw();
  }

  // Cells as large as lets all of them fit into the area.
  layOut(width) {
    const height = (columns) => Math.ceil(this.cells.length / columns) * (width / columns);
    this.columns = COLUMNS.find((columns) => height(columns) <= AREA_PX) ?? COLUMNS.at(-1);
    this.size = width / this.columns;
    return height(this.columns);
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!width || !this.cells.length) return;
    const height = this.layOut(width);
    const pen = fitted(this.canvas, width, height);
    const ink = { free: inkOf("--cell-free"), cached: inkOf("--cell-cached"), shared: inkOf("--cell-shared") };
    const gap = this.size >= 8 ? 2 : 1;
    const side = this.size - gap;
    const colours = new Map();
    this.cells.forEach((cell, place) => {
      if (cell & SHARED) pen.fillStyle = ink.shared;
      else if (cell >= HELD) {
        if (!colours.has(cell)) colours.set(cell, this.colourOf(cell - HELD));
        pen.fillStyle = colours.get(cell);
      } else pen.fillStyle = cell === CACHED ? ink.cached : ink.free;
      const x = (place % this.columns) * this.size;
      const y = Math.floor(place / this.columns) * this.size;
      pen.beginPath();
      pen.roundRect(x, y, side, side, Math.min(2.5, side / 4));
      pen.fill();
    });
  }

  point(event) {
    const column = Math.floor(event.offsetX / this.size);
    const place = Math.floor(event.offsetY / this.size) * this.columns + column;
    const cell = this.cells[place];
    if (cell === undefined) return;
    const number = (cell & ~SHARED) - HELD;
    const what = cell & SHARED ? `shared, first held by request #${number}`
      : cell >= HELD ? `request #${number}`
      : cell === CACHED ? "cached for later prompts" : "free";
    this.canvas.title = `block ${count(place * this.cache.blocks_per_cell)}: ${what}`;
  }
}
