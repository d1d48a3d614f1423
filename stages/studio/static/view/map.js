// @ts-check
/** All styles as a map on which alike ones are near. A circle takes a mix; a list does the same without a mouse. */

import * as api from "../core/api.js";
import { byId, el, percent, tell } from "../core/dom.js";
import { MOST_STYLES, normalised, partOf } from "../core/store.js";
import { fill } from "./nearby.js";

const MARGIN = 36; // px
const [DOT, NEAR, FAR] = [4, 56, 26]; // px of a dot, and of a picture when zoomed in and out
const FEW = 40; // so many in sight are shown as large pictures
const MANY = 400; // beyond so many in sight they are dots
const [CLICK, ZOOMS] = [5, [1, 12]];

/** @typedef {{ id: string, title: string, x: number, y: number }} Place */

export class StyleMap {
  /** @type {Place[]} */ places = [];
  /** @type {Map<string, HTMLImageElement>} */ pictures = new Map();
  view = { x: 0, y: 0, zoom: 1 };
  /** @type {{ x: number, y: number, radius: number } | null} */ circle = null;
  listed = false;
  asked = false;

  /** @param {import("../app.js").App} app */
  constructor(app) {
    this.app = app;
    this.canvas = el("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label":
        "Map of the styles. Arrow keys move it, plus and minus zoom; the list beside it has the same styles.",
    });
    this.list = el("div", { class: "scroll list", hidden: true });
    this.hint = el("p", { class: "muted hint" });
    const button = (/** @type {string} */ words, /** @type {string} */ label, /** @type {() => void} */ onclick) =>
      el("button", { class: "quiet", "aria-label": label, title: label, onclick }, words);
    this.lister = el("button", { class: "quiet", "aria-pressed": "false", onclick: () => this.toggleList() }, "List");
    byId("map").append(
      el(
        "div",
        { class: "row" },
        this.lister,
        el("span", { class: "gap" }),
        button("−", "Zoom out", () => this.zoom(1 / 1.5)),
        button("+", "Zoom in", () => this.zoom(1.5)),
        button("Reset", "Whole map", () => this.reset()),
      ),
      this.canvas,
      this.list,
      this.hint,
    );
    this.listen();
    byId("as-grid").addEventListener("click", () => this.toggle(false));
    byId("as-map").addEventListener("click", () => this.toggle(true));
    app.store.addEventListener("change", () => this.shown && this.paint());
    app.addEventListener("target", () => this.shown && this.load());
    app.events.addEventListener(
      "job",
      (/** @type {any} */ event) =>
        this.shown && ["shelf", "style"].includes(event.detail.kind) && event.detail.state === "done" && this.load(),
    );
    new ResizeObserver(() => this.paint()).observe(this.canvas);
  }

  get shown() {
    return !byId("map").hidden;
  }

  toggle(on = !this.shown) {
    byId("map").hidden = !on;
    byId("grid").hidden = byId("filters").hidden = on;
    byId("studio").classList.toggle("mapped", on);
    byId("as-map").setAttribute("aria-pressed", String(on));
    byId("as-grid").setAttribute("aria-pressed", String(!on));
    if (on) this.load();
  }

  async load() {
    try {
      const { ids, places } = await api.map(this.app.target);
      this.places = ids.map((/** @type {string} */ id, /** @type {number} */ at) => ({
        id,
        title: this.app.styles.get(id)?.title ?? id,
        x: places[2 * at],
        y: places[2 * at + 1],
      }));
      this.say();
      fill(this.list, this.app, this.places);
      this.paint();
    } catch (error) {
      tell(/** @type {Error} */ (error));
    }
  }

  say() {
    this.hint.textContent = this.listed
      ? `Tick up to ${MOST_STYLES} styles to mix them.`
      : "Drag a circle to mix what lies in it; a click takes one. The wheel zooms.";
  }

  listen() {
    const { canvas } = this;
    const at = (/** @type {MouseEvent} */ event) => ({ x: event.offsetX, y: event.offsetY });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.circle = { ...at(event), radius: 0 };
    });
    canvas.addEventListener("pointermove", (event) => {
      const { x, y } = at(event);
      if (this.circle && canvas.hasPointerCapture(event.pointerId))
        this.circle.radius = Math.hypot(x - this.circle.x, y - this.circle.y);
      else canvas.title = this.nearest(x, y)?.title ?? "";
      this.paint();
    });
    canvas.addEventListener("pointerup", (event) => this.release(at(event)));
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, at(event));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      /** @type {Record<string, () => void>} */
      const keys = {
        ArrowLeft: () => this.pan(40, 0),
        ArrowRight: () => this.pan(-40, 0),
        ArrowUp: () => this.pan(0, 40),
        ArrowDown: () => this.pan(0, -40),
        "+": () => this.zoom(1.5),
        "-": () => this.zoom(1 / 1.5),
      };
      if (!keys[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    });
  }

  release(/** @type {{ x: number, y: number }} */ { x, y }) {
    const { circle } = this;
    this.circle = null;
    if (!circle) return;
    if (circle.radius < CLICK) {
      const found = this.nearest(x, y);
      if (found) this.app.choose(found.id);
      return;
    }
    const inside = this.inside(circle);
    if (inside.length) this.app.mix(inside);
    else tell("No style lies in this circle.");
    this.paint();
  }

  /** The styles in a circle as a mix: the nearer to its middle, the more. */
  inside(/** @type {{ x: number, y: number, radius: number }} */ circle) {
    const near = this.places
      .map((place) => ({
        id: place.id,
        far: Math.hypot(this.onScreen(place).x - circle.x, this.onScreen(place).y - circle.y),
      }))
      .filter(({ far }) => far < circle.radius)
      .sort((one, other) => one.far - other.far)
      .slice(0, MOST_STYLES);
    return normalised(near.map(({ id, far }) => [id, 1 - 0.9 * (far / circle.radius)]));
  }

  nearest(/** @type {number} */ x, /** @type {number} */ y) {
    let [found, least] = [/** @type {Place | null} */ (null), FAR];
    for (const place of this.places) {
      const on = this.onScreen(place);
      const far = Math.hypot(on.x - x, on.y - y);
      if (far < least) [found, least] = [place, far];
    }
    return found;
  }

  onScreen(/** @type {Place} */ place) {
    const [width, height] = [this.canvas.clientWidth - 2 * MARGIN, this.canvas.clientHeight - 2 * MARGIN];
    const { x, y, zoom } = this.view;
    return { x: MARGIN + place.x * width * zoom + x, y: MARGIN + place.y * height * zoom + y };
  }

  zoom(/** @type {number} */ by, at = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 }) {
    const zoom = Math.min(Math.max(this.view.zoom * by, ZOOMS[0]), ZOOMS[1]);
    const ratio = zoom / this.view.zoom;
    const [x, y] = [at.x - MARGIN, at.y - MARGIN];
    this.view = { zoom, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio };
    if (zoom === 1) this.view = { zoom, x: 0, y: 0 };
    this.paint();
  }

  pan(/** @type {number} */ x, /** @type {number} */ y) {
    this.view = { ...this.view, x: this.view.x + x, y: this.view.y + y };
    this.paint();
  }

  reset() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.paint();
  }

  paint() {
    if (this.asked || !this.shown) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  draw() {
    const { canvas } = this;
    const sharp = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * sharp), Math.round(canvas.clientHeight * sharp)];
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(sharp, sharp);
    const colours = getComputedStyle(canvas);
    const seen = this.places
      .map((place) => ({ ...place, ...this.onScreen(place) }))
      .filter(({ x, y }) => x > -NEAR && y > -NEAR && x < canvas.clientWidth + NEAR && y < canvas.clientHeight + NEAR);
    const side = seen.length <= FEW ? NEAR : FAR;
    const weights = new Map(this.circle ? this.inside(this.circle) : partOf(this.app.store.doc, this.app.target).mix);
    const last = seen.sort((one, other) => Number(weights.has(one.id)) - Number(weights.has(other.id)));
    for (const { id, x, y } of last) {
      const picture = seen.length <= MANY ? this.picture(id) : null;
      context.fillStyle = colours.color;
      if (picture) context.drawImage(picture, x - side / 2, y - side / 2, side, side);
      else context.fillRect(x - DOT / 2, y - DOT / 2, DOT, DOT);
      if (weights.has(id)) this.frame(context, colours.accentColor, x, y, side, weights.get(id) ?? 0);
    }
    if (!this.circle) return;
    context.strokeStyle = colours.accentColor;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.circle.x, this.circle.y, this.circle.radius, 0, 2 * Math.PI);
    context.stroke();
  }

  /** The frame of a chosen style with its weight. @param {CanvasRenderingContext2D} context */
  frame(
    context,
    /** @type {string} */ colour,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ side,
    /** @type {number} */ weight,
  ) {
    context.strokeStyle = colour;
    context.lineWidth = 3;
    context.strokeRect(x - side / 2 - 1.5, y - side / 2 - 1.5, side + 3, side + 3);
    if (weight >= 0.995) return;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(percent(weight), x, y + side / 2 + 14);
  }

  picture(/** @type {string} */ id) {
    let found = this.pictures.get(id);
    if (!found) {
      found = new Image();
      found.src = api.thumb(id);
      found.addEventListener("load", () => this.paint());
      this.pictures.set(id, found);
    }
    return found.complete && found.naturalWidth ? found : null;
  }

  toggleList() {
    this.listed = !this.listed;
    this.lister.setAttribute("aria-pressed", String(this.listed));
    this.list.hidden = !this.listed;
    this.canvas.hidden = this.listed;
    this.say();
    this.paint();
  }
}
