// @ts-check
/** Several portraits in one look: a row each, and all of them as a zip. */

import { isReading } from "../app.js";
import * as api from "../core/api.js";
import { byId, el, save, tell } from "../core/dom.js";
import { keyOf } from "../core/store.js";

/**
 * @typedef {{ id: string | null, key: string, node: HTMLElement, canvas: HTMLCanvasElement, words: HTMLElement }} Row
 */

export class Batch {
  /** @type {Row[]} */ rows = [];
  making = false;

  /** @param {import("../app.js").App} app  @param {import("./portraits.js").Portraits} portraits */
  constructor(app, portraits) {
    this.app = app;
    this.portraits = portraits;
    this.node = byId("batch");
    this.list = el("ol", { class: "rows scroll" });
    this.zip = el("button", { class: "primary", onclick: () => this.take() }, "Download all");
    this.note = el("p", { class: "muted" });
    this.node.append(
      el(
        "div",
        { class: "row" },
        el("h2", {}, "Batch"),
        el("button", { onclick: () => this.toggle(false) }, "Back to the picture"),
      ),
      this.note,
      this.list,
      el("div", { class: "row" }, el("span", { class: "gap" }), this.zip),
    );
    app.renderer.addEventListener("rest", () => this.make());
    portraits.addEventListener("better", () => this.make());
  }

  toggle(/** @type {boolean} */ on) {
    this.node.hidden = !on;
  }

  /** Reads the portraits one by one and shows each in the look that is chosen. */
  async start(/** @type {File[]} */ files) {
    const most = this.app.about.limits.portraits;
    const taken = files.slice(0, most);
    this.rows = taken.map((file) => row(file.name));
    this.list.replaceChildren(...this.rows.map(({ node }) => node));
    this.note.textContent =
      files.length > most
        ? `The first ${most} of ${files.length}. Whole folders: hypernst stylize --recipe recipe.json FOLDER -o OUT.`
        : "Every portrait gets the look that is chosen; change it and they follow.";
    this.toggle(true);
    this.zip.disabled = true;
    for (const [place, file] of taken.entries()) await this.read(this.rows[place], file);
    this.zip.disabled = !this.ready.length;
    if (!this.app.store.doc.portrait && this.ready[0]?.id) this.portraits.show(this.ready[0].id);
    await this.make();
  }

  get ready() {
    return this.rows.filter(({ id }) => id && this.app.portraits.has(id));
  }

  async read(/** @type {Row} */ one, /** @type {File} */ file) {
    say(one, "reading…");
    try {
      one.id = await this.portraits.read(file);
      say(one, one.id ? "waiting" : "left out");
    } catch (error) {
      say(one, `${/** @type {Error} */ (error).message}`);
    }
  }

  /** Renders the rows that do not show the present look, one after the other; the picture on the stage goes first. */
  async make() {
    if (this.making || this.node.hidden) return;
    this.making = true;
    try {
      for (let one; (one = this.ready.find((row) => row.key !== this.key(row)));) await this.render(one);
    } catch (error) {
      tell(/** @type {Error} */ (error));
    } finally {
      this.making = false;
    }
  }

  async render(/** @type {Row} */ one) {
    const [key, told] = [this.key(one), this.app.portraits.get(one.id ?? "")];
    say(one, "rendering…");
    const recipe = this.app.recipe(this.doc(one));
    const made = await api.render({ recipe, portrait: told.id, ticket: 0, purpose: "keyframe" });
    one.canvas.getContext("2d")?.drawImage(made.bitmap, 0, 0, one.canvas.width, one.canvas.height);
    one.key = key;
    say(one, isReading(told) ? "draft" : "done");
  }

  doc(/** @type {Row} */ one) {
    return { ...this.app.store.doc, portrait: one.id, refine: 0 };
  }

  /** What a row is to show. */
  key(/** @type {Row} */ one) {
    return `${this.app.portraits.get(one.id ?? "").version} ${keyOf(this.doc(one))}`;
  }

  async take() {
    const ids = this.ready.map(({ id }) => id);
    this.zip.disabled = true;
    try {
      const { file, name } = await this.app.made({
        recipe: this.app.recipe(this.app.seen),
        portrait: ids[0],
        portraits: ids,
        kind: "batch",
      });
      save(file, name);
    } catch (error) {
      tell(/** @type {Error} */ (error));
    } finally {
      this.zip.disabled = false;
    }
  }

  clear() {
    this.rows = [];
    this.list.replaceChildren();
    this.toggle(false);
  }
}

/** @returns {Row} */
function row(/** @type {string} */ name) {
  const canvas = el("canvas", { width: 128, height: 128 });
  const words = el("span", { class: "muted" }, "waiting");
  return {
    id: null,
    key: "",
    canvas,
    words,
    node: el("li", {}, canvas, el("strong", {}, name), words),
  };
}

const say = (/** @type {Row} */ one, /** @type {string} */ words) => (one.words.textContent = words);
