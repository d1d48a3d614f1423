// @ts-check
/** What the parts of the page share: the document, what the server has, and every change that a person can make. */

import * as api from "./core/api.js";
import { Events } from "./core/events.js";
import { toRecipe } from "./core/recipe.js";
import { Renderer } from "./core/renderer.js";
import { MOST_STYLES, Store, normalised, partOf, regionsOf, stylesOf } from "./core/store.js";

/** @typedef {import("./core/store.js").Doc} Doc */
/** @typedef {import("./core/store.js").Target} Target */
/** @typedef {import("./core/store.js").Region} Region */
/** @typedef {import("./core/store.js").Mix} Mix */

/** Tells "ready" when the server has said what it is, "target" when another region is set, "full" when a mix is. */
export class App extends EventTarget {
  store = new Store();
  events = new Events();
  /** @type {any} */ about = null;
  /** @type {Map<string, any>} */ styles = new Map();
  /** @type {Map<string, any>} */ portraits = new Map();
  /** @type {Map<string, { file: File, name: string }>} */ ownStyles = new Map();
  /** @type {Target} */ target = "whole";
  /** @type {import("./view/stage.js").Stage} */ stage = /** @type {any} */ (null);

  constructor() {
    super();
    this.renderer = new Renderer(
      (doc) => this.recipe(doc),
      (style) => !this.styles.get(style)?.read,
    );
    this.renderer.addEventListener("rest", () => {
      for (const style of stylesOf(this.store.doc)) Object.assign(this.styles.get(style) ?? {}, { read: true });
    });
    this.store.addEventListener("change", () => {
      if (this.store.doc.whole !== (this.target === "whole")) this.target = this.store.doc.whole ? "whole" : "face";
      this.renderer.show(this.store.doc, this.store.gesture === null);
    });
  }

  /** The recipe of a document. */
  recipe(/** @type {Doc} */ doc) {
    return toRecipe(doc, this.about, this.portraits.get(doc.portrait ?? ""), this.styles);
  }

  /** What is seen now, its refinement included. */
  get seen() {
    const { renderer, store } = this;
    return { ...store.doc, refine: renderer.refined ? renderer.step : store.doc.refine };
  }

  get portrait() {
    return this.portraits.get(this.store.doc.portrait ?? "") ?? null;
  }

  setTarget(/** @type {Target} */ target) {
    if (target === this.target) return;
    this.target = target;
    if (this.store.doc.whole !== (target === "whole")) this.setWhole(target === "whole");
    this.dispatchEvent(new Event("target"));
  }

  /** One look for the whole portrait, or one for each region; the former look stays until something is chosen. */
  setWhole(/** @type {boolean} */ whole) {
    const part = partOf(this.store.doc, this.target);
    if (whole !== (this.target === "whole")) this.target = whole ? "whole" : "face";
    this.store.edit((doc) => {
      doc.whole = whole;
      if (whole) for (const name of regionsOf("whole")) doc.regions[name] = structuredClone(part);
    });
    this.dispatchEvent(new Event("target"));
  }

  /** The document with a style chosen for the target, or added to its mix. */
  with(/** @type {string} */ style, add = false) {
    const doc = structuredClone(this.store.doc);
    doc.refine = 0;
    for (const name of regionsOf(this.target)) doc.regions[name].mix = mixed(doc.regions[name].mix, style, add);
    return doc;
  }

  choose(/** @type {string} */ style, add = false) {
    this.look(this.with(style, add));
  }

  /** Takes several styles with weights at once, as the map gives them: whether the look has room for them. */
  mix(/** @type {Mix} */ mix) {
    const doc = structuredClone(this.store.doc);
    for (const name of regionsOf(this.target)) doc.regions[name].mix = normalised(mix);
    return this.look(doc);
  }

  look(/** @type {Doc} */ { regions, ...doc }) {
    const fits = stylesOf({ ...doc, regions }).length <= MOST_STYLES;
    if (fits) this.store.edit((now) => Object.assign(now, { regions }));
    else this.dispatchEvent(new Event("full"));
    return fits;
  }

  /** A file that the server makes, as `exported` asks for it; `waits` is called where that is a job. */
  async made(/** @type {any} */ asked, /** @type {() => void} */ waits = () => undefined) {
    const told = await api.exported(asked);
    if (!told.job) return told;
    waits();
    await this.events.wait(told.job);
    return api.jobFile(told.job);
  }

  leaveOut(/** @type {Target} */ target, /** @type {string} */ style) {
    this.store.edit((doc) => {
      for (const name of regionsOf(target))
        doc.regions[name].mix = normalised(doc.regions[name].mix.filter(([id]) => id !== style));
    });
  }

  setWeights(/** @type {Target} */ target, /** @type {number[]} */ weights) {
    this.store.edit((doc) => {
      for (const name of regionsOf(target))
        doc.regions[name].mix = doc.regions[name].mix.map(([style], place) => [style, weights[place]]);
    }, `mix ${target}`);
  }

  setStrength(/** @type {Target} */ target, /** @type {number} */ t) {
    this.store.edit((doc) => {
      for (const name of regionsOf(target)) doc.regions[name].t = Math.min(Math.max(t, 0), 1);
    }, `strength ${target}`);
  }

  /** Keeps the refinement that is seen as part of the look, so that it can be undone and told. */
  keep() {
    this.renderer.hold();
    const { step } = this.renderer;
    if (step) this.store.edit((doc) => (doc.refine = step));
  }

  unrefine() {
    this.renderer.unrefine();
    if (this.store.doc.refine) this.store.edit((doc) => (doc.refine = 0));
  }

  /** The id of a picture that is brought in as a style. */
  async addStyle(/** @type {File} */ file) {
    const { id, job } = await api.addStyle(file, file.name);
    await this.events.wait(job);
    this.ownStyles.set(id, { file, name: file.name });
    return id;
  }
}

/** A mix of one style, or of one more, which takes an equal share. */
function mixed(/** @type {Mix} */ mix, /** @type {string} */ style, /** @type {boolean} */ add) {
  const others = mix.filter(([id]) => id !== style);
  if (!add || !others.length) return /** @type {Mix} */ ([[style, 1]]);
  const share = 1 / (others.length + 1);
  return /** @type {Mix} */ ([...normalised(others).map(([id, weight]) => [id, weight * (1 - share)]), [style, share]]);
}

/** Whether a portrait can be shown, be it a draft. */
export const isThere = (/** @type {any} */ told) => ["draft", "ready"].includes(told.state);

/** Whether the server is still reading a portrait: a better one follows. */
export const isReading = (/** @type {any} */ told) => ["waiting", "reading", "draft"].includes(told?.state);
