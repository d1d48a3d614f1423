// @ts-check
/** The few helpers that every part of the page uses. Texts become text nodes: nothing here reads HTML. */

/**
 * An element: `el("button", { class: "quiet", onclick: f }, "Open", icon)`.
 * Properties that start with "on" are listeners; true sets an empty attribute; false, null and undefined set none.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | number | null | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(
    ...children
      .filter((child) => child !== null && child !== undefined)
      .map((child) => (child instanceof Node ? child : String(child))),
  );
  return node;
}

/**
 * The element of this id, which index.html has.
 * @returns {any}
 */
export function byId(/** @type {string} */ id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}

/** An icon of index.html's sprite, hidden from screen readers. */
export function icon(/** @type {string} */ name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Says something to screen readers. */
export function announce(/** @type {string} */ text) {
  byId("live").textContent = text;
}

let leaving = 0;

/**
 * Shows a message for some seconds; a fault with its way out stays twice as long.
 * @param {string | (Error & { wayOut?: string })} message
 */
export function tell(message) {
  const fault = typeof message !== "string";
  const box = byId("toast");
  box.replaceChildren(
    el("strong", {}, typeof message === "string" ? message : message.message),
    typeof message !== "string" && message.wayOut ? el("span", {}, message.wayOut) : "",
  );
  box.classList.toggle("fault", fault);
  box.hidden = false;
  clearTimeout(leaving);
  leaving = window.setTimeout(() => (box.hidden = true), fault ? 12000 : 5000);
}

/** Hands a file to the person. */
export function save(/** @type {Blob} */ blob, /** @type {string} */ name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export const percent = (/** @type {number} */ part) => `${Math.round(part * 100)} %`;

/** A promise that is kept after some milliseconds. */
export const pause = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
