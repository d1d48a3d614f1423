// @ts-check
/** What was made so far, as pictures: a click brings the look back. */

import { byId, el } from "../core/dom.js";
import { keyOf } from "../core/store.js";

const MOST = 40;
const SIDE = 128; // px of a thumbnail, shown at half

export class History {
  /** @type {{ doc: import("../core/store.js").Doc, node: HTMLLIElement, canvas: HTMLCanvasElement }[]} */ entries = [];

  /** @param {import("../app.js").App} app */
  constructor(app) {
    this.app = app;
    this.list = byId("history-list");
    app.renderer.addEventListener("rest", () => this.add(app.store.doc));
    app.renderer.addEventListener(
      "change",
      () => app.renderer.state === "refined" && app.store.doc.refine && this.add(app.store.doc),
    );
    app.store.addEventListener("change", () => this.mark());
  }

  /** Adds a picture; one of a look that is there already takes its place, as the portrait may be another now. */
  add(/** @type {import("../core/store.js").Doc} */ doc) {
    const { picture } = this.app.renderer;
    if (!picture || !doc.portrait) return;
    let entry = this.entries.find((one) => keyOf(one.doc) === keyOf(doc));
    if (!entry) {
      const canvas = el("canvas", { width: SIDE, height: SIDE });
      const button = el(
        "button",
        {
          class: "past",
          onclick: () => this.app.store.edit((now) => Object.assign(now, structuredClone(doc))),
          "aria-label": this.words(doc),
          title: this.words(doc),
        },
        canvas,
      );
      const node = el("li", {}, button);
      entry = { doc, node, canvas };
      this.entries.push(entry);
      this.list.append(node);
      if (this.entries.length > MOST) this.entries.shift()?.node.remove();
      this.list.scrollLeft = this.list.scrollWidth;
    }
    entry.canvas.getContext("2d")?.drawImage(picture, 0, 0, SIDE, SIDE);
    this.mark();
  }

  words(/** @type {import("../core/store.js").Doc} */ doc) {
    const { face } = doc.regions;
    const titles = face.mix.map(([style]) => this.app.styles.get(style)?.title ?? "a style").join(" and ");
    const more = [doc.whole ? "" : ", by region", doc.refine ? `, refined ${doc.refine} steps` : ""].join("");
    return `Picture ${this.entries.length + 1}: ${titles || "without a style"}${more}`;
  }

  mark() {
    const now = keyOf(this.app.store.doc);
    const open = (/** @type {{ doc: import("../core/store.js").Doc }} */ { doc }) =>
      this.app.portraits.has(doc.portrait ?? "");
    for (const { node } of this.entries.filter((entry) => !open(entry))) node.remove();
    this.entries = this.entries.filter(open);
    byId("history-empty").hidden = this.entries.length > 0;
    for (const { doc, node } of this.entries) {
      const button = /** @type {HTMLElement} */ (node.firstElementChild);
      if (keyOf(doc) === now) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
}
