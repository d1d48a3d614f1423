// @ts-check
/** What the portrait takes: a card for the whole or one for each region, with strength, mix and edits. */

import * as api from "../core/api.js";
import { el, icon, percent } from "../core/dom.js";
import { REGIONS, normalised, partOf, toPlace, toStrength } from "../core/store.js";
import { pad, slider } from "./fields.js";

/** @typedef {import("../core/store.js").Target} Target */

const MOST_EDIT = 3; // steps along a direction; two are rare among faces already
const NAMES = { whole: "Whole portrait", hair: "Hair", face: "Face", background: "Background" };

export class Settings {
  built = "";
  /** @type {Map<Target, (doc: import("../core/store.js").Doc) => void>} */ shows = new Map();
  /** @type {Map<string, ReturnType<typeof slider>>} */ edits = new Map();

  /** @param {import("../app.js").App} app  @param {HTMLElement} node */
  constructor(app, node) {
    this.app = app;
    this.node = node;
    app.store.addEventListener("change", () => this.draw());
    app.addEventListener("target", () => this.draw());
    app.addEventListener("ready", () => this.draw());
  }

  /** Rebuilds only when there are other things to set; a slider that is held stays the same. */
  draw() {
    const { doc } = this.app.store;
    const shape = JSON.stringify([
      doc.portrait,
      doc.whole,
      this.app.target,
      REGIONS.map((name) => doc.regions[name].mix.map(([style]) => style)),
      this.app.about?.edits,
      this.app.styles.size,
    ]);
    if (shape !== this.built) {
      const focused = document.activeElement?.closest("[data-key]")?.getAttribute("data-key");
      this.build(doc);
      this.built = shape;
      if (focused) /** @type {HTMLElement | null} */ (this.node.querySelector(`[data-key="${focused}"]`))?.focus();
    }
    for (const show of this.shows.values()) show(doc);
    for (const [name, field] of this.edits) field.set(doc.edits[name] ?? 0);
  }

  build(/** @type {import("../core/store.js").Doc} */ doc) {
    this.shows.clear();
    this.edits.clear();
    if (!doc.portrait) return this.node.replaceChildren(el("h2", {}, "How it works"), steps());
    const targets = /** @type {Target[]} */ (doc.whole ? ["whole"] : REGIONS);
    this.node.replaceChildren(
      this.choice(doc.whole),
      ...targets.map((target) => this.card(target, doc)),
      ...(doc.whole
        ? []
        : [el("p", { class: "hint muted" }, "Click hair, face or background in the picture, then a style.")]),
      ...this.editing(),
    );
    return undefined;
  }

  choice(/** @type {boolean} */ whole) {
    const button = (/** @type {boolean} */ value, /** @type {string} */ words) =>
      el(
        "button",
        {
          "aria-pressed": String(whole === value),
          "data-key": `whole-${value}`,
          onclick: () => this.app.setWhole(value),
        },
        words,
      );
    return el(
      "div",
      { class: "row" },
      el("h2", {}, "Look"),
      el(
        "div",
        { class: "segments", role: "group", "aria-label": "Style of" },
        button(true, "Whole"),
        button(false, "Regions"),
      ),
    );
  }

  card(/** @type {Target} */ target, /** @type {import("../core/store.js").Doc} */ doc) {
    const { app } = this;
    const { mix } = partOf(doc, target);
    const current = app.target === target;
    const strength = slider({
      label: "Strength",
      words: percent,
      move: (place) => app.setStrength(target, toStrength(place)),
      settle: () => app.store.settle(),
    });
    strength.input.disabled = !mix.length;
    strength.input.dataset.key = `strength-${target}`;
    strength.input.setAttribute("aria-label", `Strength, ${NAMES[target].toLowerCase()}`);
    const title =
      target === "whole"
        ? el("h3", {}, NAMES.whole)
        : el(
            "label",
            { class: "target" },
            el("input", {
              type: "radio",
              name: "target",
              value: target,
              checked: current,
              "data-key": `target-${target}`,
              onchange: () => app.setTarget(target),
            }),
            el("span", { class: `chip ${target}`, "aria-hidden": "true" }),
            NAMES[target],
          );
    const mixing = mix.length > 1 && current ? this.mixing(target, doc) : null;
    this.shows.set(target, (now) => {
      strength.set(toPlace(partOf(now, target).t));
      mixing?.show(now);
    });
    const node = el(
      "div",
      { class: `card${current && target !== "whole" ? " current" : ""}` },
      el("div", { class: "row" }, title),
      el(
        "ul",
        { class: "mix" },
        ...mix.map(([style], place) => this.taken(target, style, mix.length > 1 ? "ABCDEFGH"[place] : "")),
      ),
      mix.length
        ? null
        : el(
            "p",
            { class: "muted" },
            target === "whole" ? "No style yet: choose one on the left." : "Stays as it is. Choose a style for it.",
          ),
      mixing?.node,
      strength.node,
    );
    if (target !== "whole")
      node.addEventListener(
        "click",
        (event) =>
          !(/** @type {HTMLElement} */ (event.target).closest("button, input, label")) && app.setTarget(target),
      );
    node.addEventListener("pointerenter", () => target !== "whole" && app.stage.hover(target));
    node.addEventListener("pointerleave", () => app.stage.hover(null));
    return node;
  }

  taken(/** @type {Target} */ target, /** @type {string} */ style, /** @type {string} */ letter) {
    const title = this.app.styles.get(style)?.title ?? "a style";
    const remove = el(
      "button",
      {
        class: "quiet",
        "aria-label": `Leave ${title} out`,
        title: "Leave it out",
        "data-key": `out-${target}-${style}`,
        onclick: () => this.app.leaveOut(target, style),
      },
      icon("close"),
    );
    return el(
      "li",
      {},
      el("img", { src: api.thumb(style), alt: "", width: 40, height: 40 }),
      letter ? el("b", {}, letter) : null,
      el("span", { title }, title),
      remove,
    );
  }

  /** Two styles have one slider, three and four a pad as well, more only a weight each. */
  mixing(/** @type {Target} */ target, /** @type {import("../core/store.js").Doc} */ doc) {
    const { app } = this;
    const count = partOf(doc, target).mix.length;
    const settle = () => app.store.settle();
    const setAll = (/** @type {number[]} */ weights) => app.setWeights(target, weights);
    const weightsOf = (/** @type {import("../core/store.js").Doc} */ now) =>
      normalised(partOf(now, target).mix).map(([, weight]) => weight);
    if (count === 2) {
      const words = (/** @type {number} */ part) => `A ${percent(1 - part)} · B ${percent(part)}`;
      const between = slider({
        label: "Mix of A and B",
        words,
        move: (part) => setAll([1 - part, part]),
        settle,
        hidden: true,
      });
      between.node.classList.add("between");
      between.input.dataset.key = `between-${target}`;
      return { node: between.node, show: (/** @type {any} */ now) => between.set(weightsOf(now)[1]) };
    }
    const square = count <= 4 ? pad({ move: setAll, settle }) : null;
    const fields = [..."ABCDEFGH"].slice(0, count).map((letter, place) => {
      const field = slider({
        label: letter,
        words: percent,
        move: (weight) => setAll(shared(weightsOf(app.store.doc), place, weight)),
        settle,
      });
      field.input.setAttribute("aria-label", `Weight of ${letter}`);
      field.input.dataset.key = `weight-${target}-${letter}`;
      return field;
    });
    const show = (/** @type {import("../core/store.js").Doc} */ now) => {
      const weights = weightsOf(now);
      square?.set(
        weights,
        partOf(now, target).mix.map(([style]) => api.thumb(style)),
      );
      fields.forEach((field, place) => field.set(weights[place] ?? 0));
    };
    return { node: el("div", { class: "mixing" }, square?.node, ...fields.map((field) => field.node)), show };
  }

  /** Sliders for age, smile and pose, where the server has directions for them. */
  editing() {
    const { edits: known = [], limits } = this.app.about ?? {};
    if (!known.length) return [];
    const most = Math.min(MOST_EDIT, limits.edit);
    const fields = known.map((/** @type {string} */ name) => {
      const field = slider({
        label: `${name[0].toUpperCase()}${name.slice(1)}`,
        min: -most,
        max: most,
        step: 0.1,
        words: (value) => (value > 0 ? "+" : "") + value.toFixed(1),
        move: (value) => this.app.store.edit((doc) => edited(doc, name, value), `edit ${name}`),
        settle: () => this.app.store.settle(),
      });
      field.input.dataset.key = `edit-${name}`;
      field.input.title = "A double click takes it back";
      field.input.addEventListener("dblclick", () => this.app.store.edit((doc) => edited(doc, name, 0)));
      this.edits.set(name, field);
      return field.node;
    });
    return [el("div", { class: "card edits" }, el("h3", {}, "Edit"), ...fields)];
  }
}

/** Weights of which one is set; the others share the rest as they did. */
export function shared(/** @type {number[]} */ weights, /** @type {number} */ place, /** @type {number} */ weight) {
  const others = weights.reduce((sum, value, at) => (at === place ? sum : sum + value), 0);
  return weights.map((value, at) =>
    at === place ? weight : others > 0 ? (value / others) * (1 - weight) : (1 - weight) / (weights.length - 1),
  );
}

function edited(
  /** @type {import("../core/store.js").Doc} */ doc,
  /** @type {string} */ name,
  /** @type {number} */ value,
) {
  delete doc.edits[name];
  if (value) doc.edits[name] = value;
}

const steps = () =>
  el(
    "ol",
    { class: "steps" },
    el("li", {}, el("b", {}, "A portrait. "), "Drop a photo, or take a sample face."),
    el("li", {}, el("b", {}, "A style. "), "Any picture on the left, or one of your own."),
    el(
      "li",
      {},
      el("b", {}, "Parts. "),
      "Hair, face and background may each have a style, a mix and a strength of their own.",
    ),
    el("li", {}, el("b", {}, "Take it away. "), "The picture carries its recipe: drop it here again to go on from it."),
  );
