// @ts-check
/** Portraits: the start screen, files that are opened or dropped, several faces or none, and the list of those open. */

import * as api from "../core/api.js";
import { byId, el, icon, tell } from "../core/dom.js";
import { blank } from "../core/store.js";
import { answer, ask, paragraph } from "./dialog.js";

const MOST_WAIT = 1000; // ms
const WORDS = {
  align: "Finding the face",
  latents: "Looking at the face",
  masks: "Finding hair, face and background",
  "aladin-codes": "Looking at its style",
};

export class Portraits {
  /** @type {Map<string, File>} */ files = new Map(); // kept, to give them to a server that was started anew
  /** @type {string | null} */ loaded = null; // the portrait that the stage shows
  reading = ""; // the portrait whose reading is told

  /** @param {import("../app.js").App} app */
  constructor(app) {
    this.app = app;
    this.select = /** @type {HTMLSelectElement} */ (byId("portrait-choice"));
    this.select.addEventListener("change", () => this.show(this.select.value));
    byId("open").addEventListener("click", () => byId("file").click());
    app.store.addEventListener("change", () => this.opened());
    app.addEventListener("ready", () => this.start());
    byId("faces").addEventListener("click", () => this.whichFace());
    app.events.addEventListener("portrait", (/** @type {any} */ event) =>
      this.improved(event.detail.id, event.detail.state),
    );
    app.events.addEventListener("job", (/** @type {any} */ event) => this.progress(event.detail));
  }

  /** The screen without a portrait: one place to drop one, and three faces to try. */
  async start() {
    const names = await api.samples().catch(() => []);
    const samples = names.map((/** @type {string} */ name, /** @type {number} */ place) =>
      el(
        "li",
        {},
        el(
          "button",
          { class: "sample", "aria-label": `Try generated face ${place + 1}`, onclick: () => this.openSample(name) },
          el("img", { src: api.sampleImage(name), alt: "", width: 112, height: 112 }),
        ),
      ),
    );
    byId("start").replaceChildren(
      el(
        "button",
        { class: "zone", onclick: () => byId("file").click() },
        icon("picture"),
        el("strong", {}, "Drop a portrait"),
        el("span", { class: "muted" }, "or click to choose a photo. It stays on this machine."),
      ),
      samples.length ? el("p", { class: "muted" }, "or try one of these generated faces") : "",
      el("ul", { class: "samples" }, ...samples),
      el(
        "div",
        { id: "reading", hidden: true },
        el("p", { id: "reading-what", role: "status" }),
        el("progress", { id: "reading-part", "aria-label": "Reading the portrait" }),
      ),
    );
    this.opened();
  }

  /** Opens a sample face in the first style, so that one click shows what this is about. */
  async openSample(/** @type {string} */ name) {
    const [first] = this.app.styles.keys();
    const file = new File([await (await api.call(api.sampleImage(name))).blob()], name);
    if ((await this.open(file)) && first && !this.app.store.doc.regions.face.mix.length) this.app.choose(first);
  }

  /** What is seen of portraits follows the document. */
  opened() {
    const { portrait } = this.app.store.doc;
    byId("start").hidden = Boolean(portrait);
    byId("frame").hidden = byId("bar").hidden = !portrait;
    this.select.hidden = !this.app.portraits.size;
    byId("open").classList.toggle("alone", !this.app.portraits.size);
    this.select.replaceChildren(
      ...[...this.app.portraits.values()].map((one) =>
        el("option", { value: one.id, selected: one.id === portrait }, one.name),
      ),
    );
    const faces = this.app.portrait?.faces.length ?? 0;
    byId("faces").hidden = faces < 2;
    byId("faces").textContent = `${faces} faces…`;
    if (portrait === this.loaded) return;
    this.loaded = portrait;
    this.app.stage.open(portrait).catch(tell);
  }

  progress(/** @type {import("../core/events.js").Job} */ job) {
    if (!this.reading || job.about !== this.reading || !job.what) return;
    const stage = /** @type {keyof WORDS} */ (job.what.split(": ").at(-1) ?? "");
    byId("reading-what").textContent = `${WORDS[stage] ?? "Reading the portrait"}…`;
    byId("reading-part").max = job.of || 1;
    byId("reading-part").value = job.done;
  }

  /** Opens a photo and shows it; false when it cannot be used. */
  async open(/** @type {File} */ file) {
    this.busy(`Reading ${file.name}`);
    try {
      const id = await this.read(file);
      if (id) this.show(id);
      return Boolean(id);
    } catch (error) {
      tell(/** @type {Error} */ (error));
      return false;
    } finally {
      this.busy(null);
    }
  }

  /** The id of a photo's portrait when it can be rendered, null when it is not wanted. Raises a Fault if it cannot. */
  async read(/** @type {File} */ file) {
    const { id } = await api.openPortrait(file, file.name);
    this.reading = id;
    this.files.set(id, file);
    if (await this.follow(id)) return id;
    this.files.delete(id);
    return null;
  }

  busy(/** @type {string | null} */ what) {
    byId("reading").hidden = what === null;
    byId("reading-what").textContent = what === null ? "" : `${what}…`;
    byId("reading-part").removeAttribute("value");
    byId("start").classList.toggle("busy", what !== null);
  }

  /** Waits until a portrait can be shown: whether it can. Raises a Fault that says why not. */
  async follow(/** @type {string} */ id) {
    for (;;) {
      const told = await api.portrait(id);
      if (told.state === "no_face") {
        if (!(await this.useCentre(told))) {
          await api.forgetPortrait(id);
          return false;
        }
        await api.chooseFace(id, { centre: true });
      } else if (told.state === "failed") {
        throw new api.Fault(told.error, told.way_out);
      } else if (["draft", "ready"].includes(told.state)) {
        this.app.portraits.set(id, told);
        return true;
      }
      await this.change(id);
    }
  }

  /** The next change of a portrait; or a second, should it have come before we listened. */
  change(/** @type {string} */ id) {
    return new Promise((resolve) => {
      const listener = (/** @type {any} */ event) => event.detail.id === id && done();
      const timer = setTimeout(() => done(), MOST_WAIT);
      const done = () => {
        clearTimeout(timer);
        this.app.events.removeEventListener("portrait", listener);
        resolve(undefined);
      };
      this.app.events.addEventListener("portrait", listener);
    });
  }

  /** Another face, or a better latent, of a portrait that is shown: it is rendered anew. */
  async improved(/** @type {string} */ id, /** @type {string} */ state) {
    const known = this.app.portraits.get(id);
    if (!known || !["draft", "ready"].includes(state)) return;
    try {
      const told = await api.portrait(id);
      if (told.version === known.version) return;
      this.app.portraits.set(id, told);
      this.app.renderer.forget();
      if (this.app.store.doc.portrait !== id) return;
      this.app.renderer.show(this.app.store.doc, true);
      if (JSON.stringify(told.portrait) !== JSON.stringify(known.portrait)) await this.app.stage.open(id);
    } catch (error) {
      tell(/** @type {Error} */ (error));
    }
  }

  async useCentre(/** @type {any} */ told) {
    const why = told.error ?? "No face was found in this picture";
    const words = `${why}. Its central square can be used as it is; the result may look odd.`;
    return ask(
      "No face found",
      [paragraph(words)],
      [
        ["Choose another picture", ""],
        ["Use the centre", "centre"],
      ],
    );
  }

  /** Lets a person choose among the faces of the portrait that is shown. */
  async whichFace() {
    const told = this.app.portrait;
    const now = told.portrait.face;
    const boxes = told.faces.map((/** @type {number[]} */ box, /** @type {number} */ place) => {
      const button = el(
        "button",
        {
          class: "one-face",
          "aria-label": `Face ${place + 1} from the left`,
          "aria-pressed": String(place + 1 === now),
          onclick: () => answer(String(place + 1)),
        },
        String(place + 1),
      );
      const [left, top, right, bottom] = box.map((value) => 100 * value);
      Object.assign(button.style, {
        left: `${left}%`,
        top: `${top}%`,
        width: `${right - left}%`,
        height: `${bottom - top}%`,
      });
      return button;
    });
    const picture = el(
      "div",
      { class: "faces" },
      el("img", { src: `/api/portraits/${told.id}/source`, alt: told.name }),
      ...boxes,
    );
    const chosen = await ask(`Which of the ${told.faces.length} faces?`, [picture], [["Keep this one", ""]]);
    if (!chosen) return;
    try {
      await api.chooseFace(told.id, { index: Number(chosen) });
    } catch (error) {
      tell(/** @type {Error} */ (error));
    }
  }

  /** Shows a portrait that is here, with the look as it is. */
  show(/** @type {string} */ id) {
    const { app } = this;
    const first = !app.store.past.length;
    app.store.edit((doc) => (doc.portrait = id));
    if (first) app.store.past = []; // there is nothing to go back to before the first portrait
    if (app.portrait.faces.length > 1 && !app.portrait.portrait.face) this.whichFace();
  }

  /** After a new start of the server: gives it the portraits that this page still has. */
  async restore() {
    const there = new Set((await api.portraits()).map((/** @type {any} */ one) => one.id));
    for (const [id, file] of this.files) if (!there.has(id)) await this.read(file);
  }

  /** Empties the page: what was opened, chosen and made. */
  clear() {
    this.files.clear();
    this.app.portraits.clear();
    this.app.ownStyles.clear();
    this.app.renderer.forget();
    this.app.store.reset(blank());
    this.start();
  }
}
