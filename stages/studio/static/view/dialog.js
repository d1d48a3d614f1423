// @ts-check
/** The one dialog of the page, filled anew each time; Escape closes it. */

import { byId, el } from "../core/dom.js";

/**
 * Asks or tells something. `actions` are buttons from left to right; the last one is the main one.
 * @param {string} title
 * @param {(Node | string)[]} content
 * @param {[words: string, value: string, kind?: string][]} actions
 * @returns {Promise<string>} the value of the button, "" when it was closed
 */
export function ask(title, content, actions = [["Close", ""]]) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("dialog"));
  if (dialog.open) dialog.close();
  const buttons = actions.map(([words, value, kind], place) =>
    el(
      "button",
      { class: kind ?? (place === actions.length - 1 ? "primary" : ""), onclick: () => dialog.close(value) },
      words,
    ),
  );
  dialog.returnValue = "";
  dialog.replaceChildren(
    el("h2", { id: "dialog-title" }, title),
    el("div", { class: "content", tabindex: 0 }, ...content),
    el("div", { class: "actions" }, ...buttons),
  );
  dialog.showModal();
  buttons.at(-1)?.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

/** Closes the dialog with a value, from something in it. */
export const answer = (/** @type {string} */ value) => /** @type {HTMLDialogElement} */ (byId("dialog")).close(value);

export const paragraph = (/** @type {string} */ text) => el("p", {}, text);
