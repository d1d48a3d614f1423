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
   * How to fade each region from what is here, or null when a picture that it takes has not come yet.
   * @param {Doc} doc
   * @returns {Record<string, Blend> | null}
   */
  blends(doc) {
    /** @type {Record<string, Blend>} */ const found = {};
    for (const name of REGIONS) {
      const { mix, t } = doc.regions[name];
      /** @type {[string | null, number][]} */ const taken = mix.length ? normalised(mix) : [[null, 1]];
      /** @type {Blend} */ const blend = [];
      for (const [style, weight] of taken) {
        const pair = this.between(doc, style, style ? t : 0);
        if (!pair) return null;
        for (const [picture, part] of pair) blend.push([picture, part * weight]);
      }
      found[name] = blend;
    }
    return found;
  }

  /**
   * The one or two pictures around a strength, with their weights.
   * @param {Doc} doc @param {string | null} style @param {number} t
   * @returns {Blend | null}
   */
  between(doc, style, t) {
    const at = (/** @type {number} */ mark) => this.get(frameKey(doc, mark ? style : null, mark));
    const marks = [0, ...[...KEY_STRENGTHS].reverse()].filter((mark) => mark === t || at(mark));
    const upper = marks.find((mark) => mark >= t) ?? 1;
    const lower = marks.findLast((mark) => mark <= t) ?? 0;
    const [after, before] = [at(upper), at(lower)];
    if (!after || !before) return null;
    const part = upper > lower ? (t - lower) / (upper - lower) : 1;
    return [
      [before, 1 - part],
      [after, part],
    ];
  }
}

/** The key of one style's picture of a portrait as it is edited; without a style it is the portrait's own. */
export const frameKey = (/** @type {Doc} */ doc, /** @type {string | null} */ style, /** @type {number} */ t) =>
  `${doc.portrait} ${JSON.stringify(doc.edits)} ${style} ${t}`;
