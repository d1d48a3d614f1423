// @ts-check
/** The screen without a portrait: one place to drop one, faces to try, those that are open; and how far reading is. */

import { isThere } from "../app.js";
import * as api from "../core/api.js";
import { byId, el, icon, tell } from "../core/dom.js";

/** @type {Record<string, string>} */
const WORDS = {
  align: "Finding the face",
  latents: "Looking at the face",
  masks: "Finding hair, face and background",
  "aladin-codes": "Looking at its style",
};

export class Start {
  reading = ""; // the portrait whose reading is told
  telling = el(
    "div",
    { id: "reading", hidden: true },
    el("p", { id: "reading-what", role: "status" }),
    el("progress", { id: "reading-part", "aria-label": "Reading the portrait" }),
  );

  /** @param {import("../app.js").App} app  @param {import("./portraits.js").Portraits} portraits */
  constructor(app, portraits) {
    this.app = app;
    this.portraits = portraits;
    app.addEventListener("ready", () => this.draw());
    app.events.addEventListener("job", (/** @type {any} */ event) => this.progress(event.detail));
  }

  /** Draws the place to drop a portrait at once, and the faces when the server told them. */
  async draw() {
    this.show([], []);
    const [samples, open] = await Promise.all([api.samples(), api.portraits()]).catch(() => [[], []]);
    this.show(
      samples.map((/** @type {string} */ name, /** @type {number} */ place) =>
        face(`Try generated face ${place + 1}`, api.sampleImage(name), () => this.sample(name).catch(tell)),
      ),
      open
        .filter(isThere)
        .map((/** @type {any} */ told) =>
          face(`Go on with ${told.name}`, `/api/portraits/${told.id}/image`, () => this.resume(told)),
        ),
    );
  }

  show(/** @type {HTMLElement[]} */ samples, /** @type {HTMLElement[]} */ open) {
    byId("start").replaceChildren(
      el(
        "button",
        { class: "zone", onclick: () => byId("file").click() },
        icon("picture"),
        el("strong", {}, "Drop a portrait"),
        el("span", { class: "muted" }, "or click to choose a photo. It stays on this machine."),
      ),
      ...choice("or try one of these generated faces", samples),
      ...choice("or go on with a portrait that is open", open),
      this.telling,
    );
    this.portraits.opened();
  }

  /** Opens a sample face in the first style, so that one click shows what this is about. */
  async sample(/** @type {string} */ name) {
    const [first] = this.app.styles.keys();
    const file = new File([await (await api.call(api.sampleImage(name))).blob()], name);
    const opened = await this.portraits.open(file);
    if (opened && first && !this.app.store.doc.regions.face.mix.length) this.app.choose(first);
  }

  /** Shows a portrait that the server still has, after a reload of the page. */
  resume(/** @type {any} */ told) {
    this.portraits.take(told);
    this.portraits.show(told.id);
  }

  /** Says what is being read; null: nothing. */
  busy(/** @type {string | null} */ what) {
    byId("reading").hidden = what === null;
    byId("reading-what").textContent = what === null ? "" : `${what}…`;
    byId("reading-part").removeAttribute("value");
    byId("start").classList.toggle("busy", what !== null);
  }

  progress(/** @type {import("../core/events.js").Job} */ job) {
    if (!this.reading || job.about !== this.reading || !job.what) return;
    const stage = job.what.split(": ").at(-1) ?? "";
    byId("reading-what").textContent = `${WORDS[stage] ?? "Reading the portrait"}…`;
    byId("reading-part").max = job.of || 1;
    byId("reading-part").value = job.done;
  }
}

function choice(/** @type {string} */ words, /** @type {HTMLElement[]} */ faces) {
  return faces.length ? [el("p", { class: "muted" }, words), el("ul", { class: "samples" }, ...faces)] : [];
}

function face(/** @type {string} */ label, /** @type {string} */ src, /** @type {() => void} */ onclick) {
  const picture = el("img", { src, alt: "", width: 112, height: 112 });
  return el("li", {}, el("button", { class: "sample", "aria-label": label, title: label, onclick }, picture));
}
