// @ts-check
/** Portraits: files that are opened or dropped, several faces or none, and the list of those open. */

import { isReading, isThere } from "../app.js";
import * as api from "../core/api.js";
import { byId, el, tell } from "../core/dom.js";
import { blank } from "../core/store.js";
import { answer, ask, paragraph } from "./dialog.js";
import { Start } from "./start.js";

const MOST_WAIT = 1000; // ms

/** Tells "better" when a portrait was read anew or to its end. */
export class Portraits extends EventTarget {
  /** @type {Map<string, File>} */ files = new Map(); // kept, to give them to a server that was started anew
  /** @type {string | null} */ loaded = null; // the portrait that the stage shows

  /** @param {import("../app.js").App} app */
  constructor(app) {
    super();
    this.app = app;
    this.start = new Start(app, this);
    this.select = /** @type {HTMLSelectElement} */ (byId("portrait-choice"));
    this.select.addEventListener("change", () => this.show(this.select.value));
    byId("open").addEventListener("click", () => byId("file").click());
    app.store.addEventListener("change", () => this.opened());
    byId("close").addEventListener("click", () => this.close().catch(tell));
    byId("faces").addEventListener("click", () => this.whichFace());
    app.events.addEventListener("portrait", (/** @type {any} */ event) => this.improved(event.detail.id).catch(tell));
  }

  /** What is seen of portraits follows the document. */
  opened() {
    const { portrait } = this.app.store.doc;
    byId("start").hidden = Boolean(portrait);
    byId("frame").hidden = byId("bar").hidden = !portrait;
    this.select.hidden = byId("close").hidden = !portrait;
    byId("open").classList.toggle("alone", !portrait);
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

  /** Opens a photo and shows it; false when it cannot be used. */
  async open(/** @type {File} */ file) {
    this.start.busy(`Reading ${file.name}`);
    try {
      const id = await this.read(file);
      if (id) this.show(id);
      return Boolean(id);
    } catch (error) {
      tell(/** @type {Error} */ (error));
      return false;
    } finally {
      this.start.busy(null);
    }
  }

  /**
   * The id of a photo's portrait when it can be rendered, null when it is not wanted. Raises a Fault if it cannot.
   * @param {File} file
   * @param {{ face?: number, no_face?: string }} chosen  the face that was chosen before
   */
  async read(file, chosen = {}) {
    const { id } = await api.openPortrait(file, file.name);
    this.start.reading = id;
    this.files.set(id, file);
    let wanted = false;
    try {
      wanted = await this.follow(id, chosen);
    } finally {
      if (!wanted) {
        this.files.delete(id);
        await api.forgetPortrait(id).catch(() => undefined);
      }
    }
    return wanted ? id : null;
  }

  /** Waits until a portrait can be shown: whether it can. Raises a Fault that says why not. */
  async follow(/** @type {string} */ id, /** @type {{ face?: number, no_face?: string }} */ chosen) {
    for (;;) {
      const told = await api.portrait(id);
      if (told.state === "no_face") {
        if (!chosen.no_face && !(await this.useCentre(told))) return false;
        await api.chooseFace(id, { centre: true });
      } else if (told.state === "failed") {
        throw new api.Fault(told.error, told.way_out);
      } else if (isThere(told) && chosen.face && told.portrait.face !== chosen.face) {
        await api.chooseFace(id, { index: chosen.face });
      } else if (isThere(told)) {
        this.take(told);
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

  /** Takes what is known of a portrait, and what becomes of it until it is read to its end. */
  async take(/** @type {any} */ told) {
    this.app.portraits.set(told.id, told);
    try {
      while (isReading(this.app.portraits.get(told.id))) {
        await this.change(told.id);
        await this.improved(told.id);
      }
    } catch {
      // The server is gone, and the page says so; one that was started anew gets the portrait again.
    }
  }

  /** Another face, or a better latent, of a portrait that is shown: it is rendered anew. */
  async improved(/** @type {string} */ id) {
    const { portraits, renderer, stage, store } = this.app;
    if (!portraits.has(id)) return;
    const told = await api.portrait(id);
    const known = portraits.get(id);
    if (!known) return;
    portraits.set(id, told);
    if (told.error && told.state !== known.state) tell(new api.Fault(told.error, told.way_out));
    if (told.version === known.version) return stage.paint();
    this.dispatchEvent(new Event("better"));
    renderer.forget();
    if (store.doc.portrait !== id) return;
    renderer.show(store.doc, true);
    await stage.open(id);
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
    const now = told.portrait.face ?? largest(told.faces) + 1;
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
    const waiting = { ...told, state: "waiting" };
    this.app.portraits.set(told.id, waiting);
    this.app.stage.paint();
    await api.chooseFace(told.id, { index: Number(chosen) }).catch(tell);
    this.take(waiting);
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
    for (const [id, file] of this.files)
      if (!there.has(id)) await this.read(file, this.app.portraits.get(id)?.portrait).catch(tell);
  }

  /** Closes the portrait that is shown; nothing of it is kept. */
  async close() {
    const { portrait } = this.app.store.doc;
    if (!portrait) return;
    await api.forgetPortrait(portrait);
    this.files.delete(portrait);
    this.app.portraits.delete(portrait);
    this.app.store.leave(portrait, [...this.app.portraits.keys()].at(-1) ?? null);
    if (!this.app.portraits.size) await this.start.draw();
  }

  /** Empties the page: what was opened, chosen and made. */
  clear() {
    this.files.clear();
    this.app.portraits.clear();
    this.app.ownStyles.clear();
    this.app.renderer.forget();
    this.app.store.reset(blank());
    this.start.draw();
  }
}

/** The place of the largest box in a list: the face that is taken unless another is chosen. */
function largest(/** @type {number[][]} */ boxes) {
  const areas = boxes.map(([left, top, right, bottom]) => (right - left) * (bottom - top));
  return areas.indexOf(Math.max(...areas));
}
