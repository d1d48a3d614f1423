// @ts-check
/** The map as a list: styles from near to far of the chosen one, to tick. */

import * as api from "../core/api.js";
import { el } from "../core/dom.js";
import { partOf } from "../core/store.js";

/** @typedef {import("./map.js").Place} Place */

/**
 * Fills a list with styles; those that are ticked are mixed evenly.
 * @param {HTMLElement} list
 * @param {import("../app.js").App} app
 * @param {Place[]} places
 */
export function fill(list, app, places) {
  const chosen = partOf(app.store.doc, app.target).mix.map(([id]) => id);
  const middle = places.find(({ id }) => id === chosen[0]) ?? { x: 0.5, y: 0.5 };
  const far = (/** @type {Place} */ place) => Math.hypot(place.x - middle.x, place.y - middle.y);
  const tick = (/** @type {HTMLInputElement} */ box) => {
    const ticked = [...list.querySelectorAll("input")].filter((one) => one.checked);
    if (!app.mix(ticked.map((one) => [one.value, 1 / ticked.length]))) box.checked = false;
  };
  const row = (/** @type {Place} */ { id, title }) => {
    const box = el("input", { type: "checkbox", checked: chosen.includes(id), onchange: () => tick(box) });
    box.value = id;
    const picture = el("img", { src: api.thumb(id), alt: "", width: 32, height: 32, loading: "lazy" });
    return el("label", {}, box, picture, el("span", {}, title));
  };
  list.replaceChildren(...[...places].sort((one, other) => far(one) - far(other)).map(row));
}
