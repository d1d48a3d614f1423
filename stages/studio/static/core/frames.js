// @ts-check
/** Pictures that the page keeps to fade between: each style at a few strengths, for the portrait that is open. */

import { REGIONS, normalised } from "./store.js";

/** @typedef {import("./store.js").Doc} Doc */
/** @typedef {[picture: ImageBitmap, weight: number][]} Blend  pictures to fade into one; weights sum to 1 */

const MOST = 160; // of 256 kB each
export const KEY_STRENGTHS = [1, 0.5]; // 0 is the portrait's own

/** Pictures by key, the least recently used out first. */
export class Frames {
  /** @type {Map<string, ImageBitmap>} */ held = new Map();

  get(/** @type {string} */ key) {
    const found = this.held.get(key);
    if (found) {
      this.held.delete(key);
      this.held.set(key, found);
    }
    return found;
  }

  set(/** @type {string} */ key, /** @type {ImageBitmap} */ picture) {
    this.held.set(key, picture);
    for (const oldest of this.held.keys()) {
      if (this.held.size <= MOST) break;
      this.held.delete(oldest);
    }
  }

  clear() {
    this.held.clear();
  }

  /**
   * How to fade each region from what is here, or null when a style's picture has not come yet.
   * @param {Doc} doc
   * @returns {Record<string, Blend> | null}
   */
  blends(doc) {
    const own = this.get(frameKey(doc.portrait, null, 0));
    if (!own || Object.values(doc.edits).some((value) => value !== 0)) return null;
    /** @type {Record<string, Blend>} */ const found = {};
    for (const name of REGIONS) {
      const { mix, t } = doc.regions[name];
      /** @type {Blend} */ const blend = [];
      for (const [style, weight] of normalised(mix)) {
        const pair = this.between(doc.portrait, style, t, own);
        if (!pair) return null;
        blend.push(...pair.map(([picture, part]) => /** @type {[ImageBitmap, number]} */ ([picture, part * weight])));
      }
      found[name] = blend.length ? blend : [[own, 1]];
    }
    return found;
  }

  /**
   * The two pictures around a strength, with their weights.
   * @param {string | null} portrait @param {string} style @param {number} t @param {ImageBitmap} own
   * @returns {Blend | null}
   */
  between(portrait, style, t, own) {
    const full = this.get(frameKey(portrait, style, 1));
    if (!full) return null;
    const half = this.get(frameKey(portrait, style, 0.5));
    /** @type {[number, ImageBitmap][]} */
    const marks = half ? [[0, own], [0.5, half], [1, full]] : [[0, own], [1, full]];
    const upper = marks.findIndex(([at], place) => place > 0 && t <= at);
    const [[from, before], [to, after]] = [marks[upper - 1], marks[upper]];
    const part = (t - from) / (to - from);
    return [[before, 1 - part], [after, part]];
  }
}

/** The key of one style's picture; without a style it is the portrait's own. */
export const frameKey = (/** @type {string | null} */ portrait, /** @type {string | null} */ style, /** @type {number} */ t) =>
  `${portrait} ${style} ${t}`;
