// @ts-check
/** What was made so far, as pictures: a click brings the look back. */

import { byId, el } from "../core/dom.js";
import { keyOf } from "../core/store.js";

const MOST = 40;
const SIDE = 128; // px of a thumbnail, shown at half

export class History {
  /** @type {{ doc: import("../core/store.js").Doc, node: HTMLLIElement }[]} */ entries = [];

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

  /** Adds a picture; one that is there already is only marked. */
  add(/** @type {import("../core/store.js").Doc} */ doc) {
    const { picture } = this.app.renderer;
    if (!picture || !doc.portrait) return;
    const known = this.entries.find((entry) => keyOf(entry.doc) === keyOf(doc));
    if (!known) {
      const canvas = el("canvas", { width: SIDE, height: SIDE });
      canvas.getContext("2d")?.drawImage(picture, 0, 0, SIDE, SIDE);
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
      this.entries.push({ doc, node });
      this.list.append(node);
      if (this.entries.length > MOST) this.entries.shift()?.node.remove();
      this.list.scrollLeft = this.list.scrollWidth;
    }
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
