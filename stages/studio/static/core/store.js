// @ts-check
/** What the person has chosen, with undo and redo. Everything here is plain data: it becomes the recipe. */

/**
 * @typedef {[style: string, weight: number][]} Mix  styles by id; weights sum to 1, none keeps the portrait's own style
 * @typedef {{ mix: Mix, t: number }} Part  what a region takes, and its strength from 0 to 1
 * @typedef {"hair" | "face" | "background"} Region
 * @typedef {Record<Region, Part>} Regions
 * @typedef {{ portrait: string | null, whole: boolean, regions: Regions, edits: Record<string, number>,
 *   refine: number }} Doc
 * @typedef {Region | "whole"} Target
 */

export const REGIONS = /** @type {Region[]} */ (["hair", "face", "background"]);
export const MOST_STYLES = 8;
const MOST_STEPS = 200;

/** @returns {Doc} */
export function blank() {
  const part = () => ({ mix: /** @type {Mix} */ ([]), t: 1 });
  return {
    portrait: null,
    whole: true,
    regions: { hair: part(), face: part(), background: part() },
    edits: {},
    refine: 0,
  };
}

/** The regions that a target stands for. */
export const regionsOf = (/** @type {Target} */ target) => (target === "whole" ? REGIONS : [target]);

/** What a target takes; for the whole portrait the face speaks, where regions differ. */
export const partOf = (/** @type {Doc} */ doc, /** @type {Target} */ target) =>
  doc.regions[target === "whole" ? "face" : target];

/** Every style of a document, once. */
export function stylesOf(/** @type {Doc} */ doc) {
  return [...new Set(REGIONS.flatMap((name) => doc.regions[name].mix.map(([style]) => style)))];
}

/** The same mix with weights that sum to 1; weights of 0 stay, so that a slider may come back from there. */
export function normalised(/** @type {Mix} */ mix) {
  const sum = mix.reduce((total, [, weight]) => total + weight, 0);
  return /** @type {Mix} */ (mix.map(([style, weight]) => [style, sum > 0 ? weight / sum : 1 / mix.length]));
}

/** A slider's place in [0, 1] for a strength: equal steps of the slider look alike. */
export const toPlace = (/** @type {number} */ t) => t * t;
export const toStrength = (/** @type {number} */ place) => Math.sqrt(place);

/** What tells a picture from others, as a key of caches. */
export const keyOf = (/** @type {Doc} */ doc) => JSON.stringify([doc.portrait, doc.regions, doc.edits, doc.refine]);

/** Tells "change" whenever the document is another one. */
export class Store extends EventTarget {
  doc = blank();
  /** @type {Doc[]} */ past = [];
  /** @type {Doc[]} */ future = [];
  /** @type {string | null} */ gesture = null;

  /**
   * Changes a copy of the document. Changes of one gesture (the drag of one slider) are undone together.
   * A change of the look ends what refinement added to the former one.
   * @param {(doc: Doc) => void} change
   * @param {string | null} [gesture]
   */
  edit(change, gesture = null) {
    const next = structuredClone(this.doc);
    next.refine = 0;
    change(next);
    if (JSON.stringify(next) === JSON.stringify(this.doc)) return;
    if (gesture === null || gesture !== this.gesture) {
      this.past = [...this.past, this.doc].slice(-MOST_STEPS);
      this.future = [];
    }
    this.gesture = gesture;
    this.set(next);
  }

  /** Ends a gesture: the next change is a step of its own. */
  settle() {
    this.gesture = null;
  }

  undo() {
    this.step(this.past, this.future);
  }

  redo() {
    this.step(this.future, this.past);
  }

  /** Forgets everything, undo as well. */
  reset(doc = blank()) {
    this.past = [];
    this.future = [];
    this.settle();
    this.set(doc);
  }

  /** Forgets every document of a portrait; the look goes on with another one, or none. */
  leave(/** @type {string} */ portrait, /** @type {string | null} */ next) {
    const others = (/** @type {Doc[]} */ docs) => docs.filter((doc) => doc.portrait !== portrait);
    [this.past, this.future] = [others(this.past), others(this.future)];
    this.settle();
    this.set(next ? { ...this.doc, portrait: next, refine: 0 } : blank());
  }

  step(/** @type {Doc[]} */ from, /** @type {Doc[]} */ to) {
    const doc = from.pop();
    if (!doc) return;
    to.push(this.doc);
    this.settle();
    this.set(doc);
  }

  set(/** @type {Doc} */ doc) {
    this.doc = doc;
    this.dispatchEvent(new Event("change"));
  }
}
