// @ts-check
/** What is taken away and brought back: pictures, video, recipes in files, links and PNGs. */

import * as api from "../core/api.js";
import { byId, el, save, tell } from "../core/dom.js";
import { fromRecipe, toLink } from "../core/recipe.js";
import { ask, paragraph } from "./dialog.js";

/** What can be saved, where the server can make it: words, more words, kind. */
const KINDS = [
  ["PNG with its recipe", "S", "png"],
  ["PNG without recipe", "", "png-bare"],
  ["Strip", "from the portrait to this picture", "strip"],
  ["Walk", "a video into the style", "walk"],
];

export class Take {
  pending = ""; // a recipe that waits for a portrait or for styles

  /** @param {import("../app.js").App} app  @param {() => void} openFiles */
  constructor(app, openFiles) {
    this.app = app;
    this.openFiles = openFiles;
    for (const menu of ["recipe", "download"]) {
      const list = /** @type {HTMLElement} */ (byId(`${menu}-menu`));
      list.addEventListener("beforetoggle", () => {
        const box = byId(menu).getBoundingClientRect();
        list.style.setProperty("top", `${box.bottom + 4}px`);
        list.style.setProperty("right", `${Math.max(8, window.innerWidth - box.right)}px`);
      });
      list.addEventListener("click", () => list.hidePopover());
    }
    app.store.addEventListener("change", () => this.draw());
    app.addEventListener("ready", () => this.draw());
  }

  draw() {
    const open = Boolean(this.app.store.doc.portrait);
    byId("download").disabled = !open;
    byId("recipe-menu").replaceChildren(
      item("Open a recipe…", "a .json, or a PNG made here", this.openFiles),
      item("Save recipe.json", "R", () => this.saveRecipe(), !open),
      item("Copy the recipe", "as text", () => this.copy(this.recipe), !open),
      item("Copy a link", "opens this look here", () => this.copy(toLink(this.app.recipe(this.app.seen))), !open),
    );
    const { exports = [], large = 0 } = this.app.about ?? {};
    byId("download-menu").replaceChildren(
      ...(large ? [item(`PNG, ${large} px`, "takes longer", () => this.export("png", { size: large }))] : []),
      ...KINDS.filter(([, , kind]) => exports.includes(kind)).map(([words, more, kind]) =>
        item(words, more, () => this.export(kind)),
      ),
    );
  }

  /** The recipe of what is seen, as text. */
  get recipe() {
    return JSON.stringify(this.app.recipe(this.app.seen), null, 1);
  }

  saveRecipe() {
    if (this.app.store.doc.portrait) save(new Blob([this.recipe], { type: "application/json" }), "recipe.json");
  }

  /** Saves a file of what is seen, which the server makes. */
  async export(/** @type {string} */ kind, more = {}) {
    const { app } = this;
    if (!app.store.doc.portrait) return;
    try {
      const asked = { recipe: app.recipe(app.seen), portrait: app.store.doc.portrait, kind, ...more };
      const { file, name } = await app.made(asked, () => tell("Being made; it is saved when it is done."));
      save(file, name);
    } catch (error) {
      tell(/** @type {Error} */ (error));
    }
  }

  async copy(/** @type {string} */ text) {
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied.");
    } catch {
      const area = el("textarea", { readonly: true, rows: 8, "aria-label": "To copy" });
      area.value = text;
      await ask("Copy this", [area]);
    }
  }

  /** Goes on from a recipe's JSON: asks for what is not here, takes the open portrait where its own is not. */
  async bring(/** @type {string} */ text) {
    const { app } = this;
    let told, recipe;
    try {
      recipe = JSON.parse(text);
      told = fromRecipe(recipe, app.about, app.styles.values(), app.portraits.values());
    } catch {
      return tell(new api.Fault("This is no recipe of HyperNST.", "Take a .json or a PNG that was saved here."));
    }
    if (told.lacking.length)
      return this.lacks(
        "Styles are missing",
        `The recipe needs ${told.lacking.join(", ")}. Add these pictures to the styles; the recipe then goes on.`,
        text,
      );
    const portrait = told.doc.portrait ?? app.store.doc.portrait;
    if (!portrait)
      return this.lacks(
        "Which portrait?",
        `The recipe was made for ${recipe.portrait.name}. Open that picture, or any other: the look comes with it.`,
        text,
      );
    app.store.edit((now) => Object.assign(now, told.doc, { portrait }));
    if (told.differs) return tell("Made with other weights than here: the picture will differ.");
    return told.doc.portrait ? undefined : tell(`Made for ${recipe.portrait.name}; used on this portrait.`);
  }

  /** Says what a recipe lacks, and keeps it until that is there. */
  async lacks(/** @type {string} */ title, /** @type {string} */ words, /** @type {string} */ text) {
    this.pending = text;
    await ask(title, [paragraph(words)]);
  }

  /** Goes on with a recipe that waited. */
  async resume() {
    const text = this.pending;
    this.pending = "";
    if (text) await this.bring(text);
  }
}

function item(
  /** @type {string} */ words,
  /** @type {string} */ more,
  /** @type {() => void} */ onclick,
  disabled = false,
) {
  return el("button", { onclick, disabled }, el("span", {}, words), more ? el("span", { class: "muted" }, more) : null);
}
