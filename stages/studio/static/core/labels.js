// @ts-check
/** A portrait's regions on the canvas: soft masks to compose with, colours with patterns, outlines. */

import { REGIONS } from "./store.js";

/** @typedef {import("./store.js").Region} Region */

const FEATHER = 1.5; // px of a 256 px map
const SPACING = 8; // px of the map between stripes and dots
/** Told apart by people who see fewer colours; each has a pattern besides. */
export const COLOURS = { hair: "#e69f00", face: "#56b4e9", background: "#009e73" };

const canvasOf = (/** @type {number} */ width, /** @type {number} */ height) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return /** @type {const} */ ([canvas, /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"))]);
};

export class Labels {
  /** @type {HTMLCanvasElement | null} */ coloured = null;
  /** @type {HTMLCanvasElement[]} */ outlines = [];

  /** @param {ImageBitmap} map  grey levels: 0 hair, 1 face, 2 background, more unknown, which follow the background */
  constructor(map) {
    const [canvas, context] = canvasOf(map.width, map.height);
    context.drawImage(map, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    this.width = canvas.width;
    this.height = canvas.height;
    this.labels = Uint8Array.from({ length: data.length / 4 }, (_, place) => Math.min(data[4 * place], 2));
    this.masks = REGIONS.map((_, region) => this.soft(this.drawn((label) => label === region)));
  }

  /** The region at a place in [0, 1]. */
  at(/** @type {number} */ x, /** @type {number} */ y) {
    const [column, row] = [Math.floor(x * this.width), Math.floor(y * this.height)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return null;
    return REGIONS[this.labels[row * this.width + column]];
  }

  /** A canvas that is opaque, in a colour, where `inside` says so. */
  drawn(/** @type {(label: number, x: number, y: number) => boolean} */ inside, colour = [0, 0, 0], alpha = 255) {
    const [canvas, context] = canvasOf(this.width, this.height);
    const pixels = context.createImageData(this.width, this.height);
    this.labels.forEach((label, place) => {
      const [x, y] = [place % this.width, Math.floor(place / this.width)];
      if (inside(label, x, y)) pixels.data.set([...colour, alpha], 4 * place);
    });
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  soft(/** @type {HTMLCanvasElement} */ mask) {
    const [canvas, context] = canvasOf(this.width, this.height);
    context.filter = `blur(${FEATHER}px)`;
    context.drawImage(mask, 0, 0);
    return canvas;
  }

  /** All regions in their colours: hair with stripes, face with dots, background with lines. */
  get overlay() {
    this.coloured ??= this.colour();
    return this.coloured;
  }

  colour() {
    const [canvas, context] = canvasOf(this.width, this.height);
    const patterns = [
      (/** @type {number} */ x, /** @type {number} */ y) => (x + y) % SPACING < 2,
      (/** @type {number} */ x, /** @type {number} */ y) => x % SPACING < 2 && y % SPACING < 2,
      (/** @type {number} */ _, /** @type {number} */ y) => y % SPACING < 1,
    ];
    REGIONS.forEach((name, region) => {
      const colour = rgb(COLOURS[name]);
      context.drawImage(
        this.drawn((label) => label === region, colour, 105),
        0,
        0,
      );
      context.drawImage(
        this.drawn((label, x, y) => label === region && patterns[region](x, y), colour, 190),
        0,
        0,
      );
    });
    return canvas;
  }

  /** The outline of a region: white with a dark rim, seen on any picture. */
  outline(/** @type {Region} */ name) {
    const region = REGIONS.indexOf(name);
    this.outlines[region] ??= this.edge(region);
    return this.outlines[region];
  }

  edge(/** @type {number} */ region) {
    const is = (/** @type {number} */ x, /** @type {number} */ y) => this.labels[y * this.width + x] === region;
    const near = (/** @type {number} */ x, /** @type {number} */ y) =>
      (x > 0 && !is(x - 1, y)) ||
      (y > 0 && !is(x, y - 1)) ||
      (x < this.width - 1 && !is(x + 1, y)) ||
      (y < this.height - 1 && !is(x, y + 1));
    const line = this.drawn((label, x, y) => label === region && near(x, y), [255, 255, 255]);
    const [canvas, context] = canvasOf(2 * this.width, 2 * this.height);
    context.shadowColor = "rgb(0 0 0 / 80%)";
    context.shadowBlur = 3;
    context.drawImage(line, 0, 0, canvas.width, canvas.height);
    return canvas;
  }
}

const rgb = (/** @type {string} */ hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
