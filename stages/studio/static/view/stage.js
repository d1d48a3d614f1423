// @ts-check
/** The picture: preview or exact, the portrait before it, regions over it. It repaints at most once a frame. */

import * as api from "../core/api.js";
import { announce, byId } from "../core/dom.js";
import { Labels } from "../core/labels.js";
import { REGIONS, keyOf } from "../core/store.js";

/** @typedef {import("../core/store.js").Doc} Doc */
/** @typedef {import("../core/store.js").Target} Target */

const SIDE = 1024; // px of the canvas
const WORDS = {
  empty: "",
  waiting: "rendering",
  preview: "preview",
  draft: "draft",
  exact: "exact",
  refining: "refining",
  refined: "refined",
};

export class Stage {
  /** @type {Labels | null} */ labels = null;
  /** @type {ImageBitmap | null} */ before = null;
  /** @type {Target | null} */ hovered = null;
  /** @type {Doc | null} */ peeked = null;
  held = false; // the portrait itself is shown, as long as a key is down
  overlaid = false;
  compared = false;
  asked = false;
  said = "";
  /** @type {string | null} */ id = null; // the portrait whose picture and regions are here
  /** @type {string | null} */ painted = null; // the one that was painted last

  /**
   * @param {import("../core/renderer.js").Renderer} renderer
   * @param {(region: import("../core/store.js").Region) => void} onPick  a region of the picture was clicked
   * @param {() => boolean} draft  whether a better picture of the portrait follows: its latent is still the encoder's
   */
  constructor(renderer, onPick, draft) {
    this.renderer = renderer;
    this.draft = draft;
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("picture"));
    this.canvas.width = this.canvas.height = SIDE;
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.base = sheet(SIDE); // the picture without what lies over it
    this.scratch = sheet(256);
    this.handle = /** @type {HTMLInputElement} */ (byId("compare-handle"));
    this.badge = byId("badge");
    renderer.addEventListener("change", () => this.paint());
    this.handle.addEventListener("input", () => this.paint());
    this.canvas.addEventListener("pointermove", (event) => this.hover(this.regionAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    this.canvas.addEventListener("click", (event) => {
      const region = this.regionAt(event);
      if (region) onPick(region);
    });
    byId("overlay").addEventListener("click", () => this.toggleOverlay());
    byId("compare").addEventListener("click", () => this.toggleCompare());
    byId("actual").addEventListener("click", () => this.toggleActual());
    this.toggleCompare(false);
  }

  /** Loads what belongs to a portrait: its picture and regions. Null shows none. */
  async open(/** @type {string | null} */ id) {
    if (id !== this.id) this.labels = this.before = null;
    this.id = id;
    if (!id) return this.paint();
    const [before, map] = await Promise.all([api.portraitImage(id, "image"), api.portraitImage(id, "regions.png")]);
    if (this.id !== id) return undefined;
    this.before = before;
    this.labels = new Labels(map);
    return this.paint();
  }

  regionAt(/** @type {PointerEvent | MouseEvent} */ event) {
    const box = this.canvas.getBoundingClientRect();
    return this.labels?.at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height) ?? null;
  }

  hover(/** @type {Target | null} */ region) {
    if (region === this.hovered) return;
    this.hovered = region;
    this.canvas.title = region ? `Choose a style for ${region === "whole" ? "the whole portrait" : region}` : "";
    this.paint();
  }

  /** Shows a document that is not chosen yet, faded from what is at hand; null ends it. */
  peek(/** @type {Doc | null} */ doc) {
    this.peeked = doc;
    this.paint();
  }

  hold(/** @type {boolean} */ held) {
    this.held = held;
    this.paint();
  }

  toggleOverlay(on = !this.overlaid) {
    this.overlaid = on;
    byId("overlay").setAttribute("aria-pressed", String(on));
    byId("legend").hidden = !on;
    this.paint();
  }

  toggleCompare(on = !this.compared) {
    this.compared = on;
    byId("compare").setAttribute("aria-pressed", String(on));
    this.handle.hidden = !on;
    this.paint();
  }

  toggleActual() {
    const on = byId("frame").classList.toggle("actual");
    byId("actual").setAttribute("aria-pressed", String(on));
  }

  /** Paints in the next frame, once for whatever changed until then. */
  paint() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  draw() {
    const { renderer } = this;
    const picture = this.peeked ? null : renderer.picture;
    const blends = picture ? null : renderer.frames.blends(this.peeked ?? renderer.doc);
    if (!blends) this.peeked = null;
    this.context.clearRect(0, 0, SIDE, SIDE);
    if (renderer.state !== "empty") {
      // Without anything to fade from, the last picture stays until the next comes.
      if (picture) this.show(picture);
      else if (blends) this.compose(blends, this.peeked ?? renderer.doc);
      else if (this.painted !== renderer.doc.portrait && this.before) cover(this.base, this.before);
      cover(this.context, this.held && this.before ? this.before : this.base.canvas);
      this.decorate();
    }
    this.painted = renderer.state === "empty" ? null : renderer.doc.portrait;
    this.label();
  }

  /** The picture itself; where a large one follows, 1:1 has that one's size from the first. */
  show(/** @type {ImageBitmap} */ picture) {
    const { steps, side } = this.renderer;
    cover(this.base, picture);
    byId("frame").style.setProperty("--actual", `${(steps && side) || picture.width}px`);
  }

  /** Each region faded by itself and laid on through its mask; one fade alone where regions agree. */
  compose(/** @type {Record<string, import("../core/frames.js").Blend>} */ blends, /** @type {Doc} */ doc) {
    const told = REGIONS.map((name) => JSON.stringify(doc.regions[name]));
    const alike = told.every((one) => one === told[0]);
    fade(this.base, blends.background);
    if (alike || !this.labels) return;
    for (const region of [0, 1]) {
      this.scratch.globalCompositeOperation = "source-over";
      this.scratch.clearRect(0, 0, 256, 256);
      fade(this.scratch, blends[REGIONS[region]]);
      this.scratch.globalCompositeOperation = "destination-in";
      cover(this.scratch, this.labels.masks[region]);
      cover(this.base, this.scratch.canvas);
    }
  }

  decorate() {
    if (this.compared && this.before && !this.held) {
      const at = Number(this.handle.value) / 100;
      this.context.drawImage(this.before, 0, 0, this.before.width * at, this.before.height, 0, 0, SIDE * at, SIDE);
      byId("frame").style.setProperty("--compare", String(at));
    }
    if (!this.labels) return;
    if (this.overlaid) cover(this.context, this.labels.overlay);
    if (this.hovered && this.hovered !== "whole") cover(this.context, this.labels.outline(this.hovered));
  }

  /** The badge says what is seen; screen readers hear it when it settles. */
  label() {
    const { step, of, seconds, large } = this.renderer;
    const state = this.renderer.state === "exact" && this.draft() ? "draft" : this.renderer.state;
    let words = this.peeked ? "preview" : WORDS[state];
    if (this.held) words = "before";
    else if (words === "refining") words = `refining ${step} of ${of}`;
    else if (words === "refined") words = large ? `refined, ${large.width} px` : `refined, ${step} steps`;
    const shown = state === "exact" && words === "exact" ? `exact · ${seconds.toFixed(2)} s` : words;
    this.badge.dataset.state = this.peeked ? "preview" : state;
    if (this.badge.textContent !== shown) this.badge.textContent = shown;
    this.badge.title = state === "draft" ? "The portrait is still read more closely; a better picture follows." : "";
    byId("compare").disabled = !this.before;
    byId("overlay").disabled = !this.labels;
    byId("keep").hidden = byId("unrefine").hidden = !["refining", "refined"].includes(state);
    byId("keep").disabled = this.renderer.doc.refine === step;
    this.canvas.setAttribute("aria-label", state === "empty" ? "No portrait is open" : `Stylised portrait, ${words}`);
    const settled = ["exact", "refined"].includes(state) ? `${words} ${keyOf(this.renderer.doc)}` : this.said;
    if (settled !== this.said) announce(words === "exact" ? "The picture is exact." : `The picture is ${words}.`);
    this.said = settled;
  }
}

/** A canvas of its own to paint on. */
function sheet(/** @type {number} */ side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  return context;
}

function cover(/** @type {CanvasRenderingContext2D} */ context, /** @type {CanvasImageSource} */ image, alpha = 1) {
  context.globalAlpha = alpha;
  context.drawImage(image, 0, 0, context.canvas.width, context.canvas.height);
}

/** Pictures laid over each other so that each counts by its weight. */
function fade(/** @type {CanvasRenderingContext2D} */ context, /** @type {import("../core/frames.js").Blend} */ blend) {
  let sum = 0;
  for (const [picture, weight] of blend) {
    sum += weight;
    if (weight > 0) cover(context, picture, weight / sum);
  }
}
