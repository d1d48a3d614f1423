// @ts-check
/** The styles as pictures: search by name, order by likeness, choose, add to a mix, bring one's own. */

import * as api from "../core/api.js";
import { announce, byId, el, tell } from "../core/dom.js";
import { partOf } from "../core/store.js";

const HOVER = 300; // ms over a style until it is previewed

export class Styles {
  /** @type {any[]} */ list = [];
  /** @type {any[]} */ shown = []; // those of the list that the search finds
  /** @type {string | null} */ hovered = null;
  active = 0;
  timer = 0;

  /** @param {import("../app.js").App} app */
  constructor(app) {
    this.app = app;
    this.grid = /** @type {HTMLElement} */ (byId("grid"));
    this.search = /** @type {HTMLInputElement} */ (byId("search"));
    this.near = /** @type {HTMLSelectElement} */ (byId("near"));
    this.region = /** @type {HTMLSelectElement} */ (byId("near-region"));
    this.search.addEventListener("input", () => this.draw());
    this.near.addEventListener("change", () => this.load());
    this.region.addEventListener("change", () => this.load());
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("click", (event) => this.click(event));
    this.grid.addEventListener("pointerover", (event) => this.hover(event));
    this.grid.addEventListener("pointerleave", () => this.leave());
    byId("add-styles").addEventListener("click", () => byId("style-file").click());
    app.store.addEventListener("change", () => this.mark());
    app.addEventListener("target", () => this.mark());
  }

  /** Fetches the list in the order that is asked for. */
  async load() {
    const near = { portrait: this.app.store.doc.portrait, style: this.chosen()[0], "": null }[this.near.value];
    this.region.hidden = !this.near.value;
    try {
      const all = await api.styles();
      this.app.styles = new Map(all.map((/** @type {any} */ style) => [style.id, style]));
      const alike = near ? await api.styles({ near, region: this.region.value, k: String(all.length) }) : [];
      const ranked = new Set(alike.map((/** @type {any} */ style) => style.id));
      // Those whose look is not known yet come last.
      this.list = [...alike, ...all.filter((/** @type {any} */ style) => !ranked.has(style.id))];
      this.draw();
    } catch (error) {
      tell(/** @type {Error} */ (error));
    }
  }

  chosen() {
    return partOf(this.app.store.doc, this.app.target).mix.map(([style]) => style);
  }

  draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.list.filter((style) => words.every((word) => style.title.toLowerCase().includes(word)));
    this.grid.replaceChildren(...this.shown.map((style) => tile(style)));
    if (!this.shown.length)
      this.grid.append(
        el(
          "p",
          { class: "empty" },
          this.list.length ? "No style has that in its name." : "No styles yet. Add pictures whose look you like.",
        ),
      );
    const all = this.list.length;
    byId("style-count").textContent = this.shown.length === all ? `${all} styles` : `${this.shown.length} of ${all}`;
    this.active = Math.max(
      0,
      this.shown.findIndex((style) => style.id === this.chosen()[0]),
    );
    this.mark();
  }

  /** Shows what is chosen, and where the keys are. */
  mark() {
    const chosen = this.chosen();
    const tiles = /** @type {NodeListOf<HTMLElement>} */ (this.grid.querySelectorAll("[role=option]"));
    tiles.forEach((node, place) => {
      const at = chosen.indexOf(node.dataset.id ?? "");
      node.setAttribute("aria-selected", String(at >= 0));
      node.dataset.letter = at >= 0 && chosen.length > 1 ? "ABCDEFGH"[at] : "";
      node.classList.toggle("active", place === this.active);
    });
    const active = tiles[this.active];
    if (active) this.grid.setAttribute("aria-activedescendant", active.id);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  go(/** @type {number} */ place) {
    this.active = Math.min(Math.max(place, 0), this.shown.length - 1);
    this.mark();
    this.grid.children[this.active]?.scrollIntoView({ block: "nearest" });
  }

  /** Chooses the style before or after the chosen one. */
  step(/** @type {number} */ by) {
    if (!this.shown.length) return;
    const at = this.shown.findIndex((style) => style.id === this.chosen()[0]);
    this.go(at < 0 ? 0 : (at + by + this.shown.length) % this.shown.length);
    this.app.choose(this.shown[this.active].id);
    announce(this.shown[this.active].title);
  }

  key(/** @type {KeyboardEvent} */ event) {
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    /** @type {Record<string, number>} */
    const moves = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      Home: -Infinity,
      End: Infinity,
    };
    if (event.key in moves) this.go(this.active + moves[event.key]);
    else if (event.key === "Enter" && this.shown[this.active])
      this.app.choose(this.shown[this.active].id, event.shiftKey);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  click(/** @type {MouseEvent} */ event) {
    const node = /** @type {HTMLElement} */ (event.target);
    const id = /** @type {HTMLElement | null} */ (node.closest("[role=option]"))?.dataset.id;
    if (!id) return;
    this.active = this.shown.findIndex((style) => style.id === id);
    this.leave();
    this.app.choose(id, event.shiftKey || Boolean(node.closest(".add")));
  }

  hover(/** @type {PointerEvent} */ event) {
    const id = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("[role=option]"))
      ?.dataset.id;
    this.leave();
    if (!id || event.pointerType !== "mouse" || !this.app.store.doc.portrait || this.chosen().includes(id)) return;
    this.hovered = id;
    this.timer = window.setTimeout(async () => {
      if ((await this.app.renderer.peek(id)) && this.hovered === id) this.app.stage.peek(this.app.with(id));
    }, HOVER);
  }

  leave() {
    clearTimeout(this.timer);
    this.hovered = null;
    this.app.stage.peek(null);
  }

  /** Brings pictures in as styles; the last one is chosen. */
  async add(/** @type {File[]} */ files) {
    let id = null;
    for (const file of files) {
      try {
        id = await this.app.addStyle(file);
      } catch (error) {
        tell(/** @type {Error} */ (error));
      }
    }
    await this.load();
    if (!id) return;
    this.search.value = "";
    this.draw();
    this.go(this.shown.findIndex((style) => style.id === id));
    this.app.choose(id);
  }
}

function tile(/** @type {any} */ style) {
  const likeness =
    style.likeness === undefined || style.likeness === null
      ? null
      : el("span", { class: "likeness" }, style.likeness.toFixed(2));
  const picture = el("img", {
    src: api.thumb(style.id),
    alt: "",
    width: 160,
    height: 160,
    loading: "lazy",
    decoding: "async",
    draggable: "false",
  });
  return el(
    "div",
    {
      class: "tile",
      role: "option",
      id: `style-${style.id}`,
      "data-id": style.id,
      "aria-label": style.title,
      "aria-selected": "false",
      title: style.title,
    },
    picture,
    likeness,
    el("span", { class: "add", "aria-hidden": "true", title: `Add ${style.title} to the mix` }, "+"),
  );
}
