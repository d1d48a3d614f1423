// @ts-check
/** Every key of the page, and the dialog that lists them. */

import { byId, el } from "../core/dom.js";
import { partOf, toPlace, toStrength } from "../core/store.js";
import { ask } from "./dialog.js";

/** @typedef {{ keys: string[], shown: string[], words: string, run: (event: KeyboardEvent) => void }} Key */

/**
 * Listens to the keys.
 * @param {import("../app.js").App} app
 * @param {{ styles: import("./styles.js").Styles, map: import("./map.js").StyleMap,
 *   take: import("./take.js").Take }} parts
 */
export function listen(app, { styles, map, take }) {
  const strength = (/** @type {KeyboardEvent} */ event, /** @type {number} */ way) => {
    const by = way * (event.shiftKey ? 0.1 : 0.01);
    app.setStrength(
      app.target,
      toStrength(Math.min(Math.max(toPlace(partOf(app.store.doc, app.target).t) + by, 0), 1)),
    );
  };
  /** @type {Key[]} */
  const keys = [
    { keys: ["1"], shown: ["1"], words: "hair", run: () => app.setTarget("hair") },
    { keys: ["2"], shown: ["2"], words: "face", run: () => app.setTarget("face") },
    { keys: ["3"], shown: ["3"], words: "background", run: () => app.setTarget("background") },
    { keys: ["0"], shown: ["0"], words: "whole portrait", run: () => app.setTarget("whole") },
    {
      keys: ["ArrowLeft"],
      shown: ["←", "→"],
      words: "strength by 1 %, with Shift by 10 %",
      run: (event) => strength(event, -1),
    },
    { keys: ["ArrowRight"], shown: [], words: "", run: (event) => strength(event, 1) },
    { keys: ["["], shown: ["[", "]"], words: "style before, next style", run: () => styles.step(-1) },
    { keys: ["]"], shown: [], words: "", run: () => styles.step(1) },
    { keys: [" "], shown: ["Space"], words: "hold to see the portrait itself", run: () => app.stage.hold(true) },
    { keys: ["c"], shown: ["C"], words: "compare before and after", run: () => app.stage.toggleCompare() },
    { keys: ["o"], shown: ["O"], words: "show the regions", run: () => app.stage.toggleOverlay() },
    { keys: ["k"], shown: ["K"], words: "keep the refinement", run: () => app.keep() },
    { keys: ["u"], shown: ["U"], words: "undo the refinement", run: () => app.unrefine() },
    { keys: ["m"], shown: ["M"], words: "map of styles", run: () => map.toggle() },
    { keys: ["/"], shown: ["/"], words: "search styles", run: () => [map.toggle(false), byId("search").focus()] },
    {
      keys: ["z"],
      shown: ["Z"],
      words: "undo, with Shift redo",
      run: (event) => (event.shiftKey ? app.store.redo() : app.store.undo()),
    },
    { keys: ["s"], shown: ["S"], words: "save the picture", run: () => take.export("png") },
    { keys: ["r"], shown: ["R"], words: "save the recipe", run: () => take.saveRecipe() },
    { keys: ["?"], shown: ["?"], words: "these keys", run: () => help() },
  ];
  const help = () => {
    const rows = keys
      .filter(({ shown }) => shown.length)
      .map(({ shown, words }) => el("li", {}, el("span", {}, ...shown.map((key) => el("kbd", {}, key))), words));
    return ask("Keys", [
      el("ul", { class: "keys" }, ...rows),
      el("p", { class: "muted" }, "In the styles: arrows move, Enter chooses, Shift and Enter adds to the mix."),
    ]);
  };
  byId("help-open").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    if (!free(event)) return;
    const lower = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const found = keys.find((key) => key.keys.includes(lower));
    if (!found) return;
    event.preventDefault();
    if (!event.repeat || event.key !== " ") found.run(event);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") app.stage.hold(false);
    if (event.key.startsWith("Arrow")) app.store.settle();
  });
  window.addEventListener("blur", () => app.stage.hold(false));
}

/** Whether a key is ours: not while something is typed or asked, and not what a focused field uses itself. */
function free(/** @type {KeyboardEvent} */ event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || byId("dialog").open) return false;
  const at = /** @type {HTMLElement} */ (event.target);
  if (at.matches?.("input[type=search], textarea, select")) return false;
  if (at.matches?.("input") && (event.key.startsWith("Arrow") || event.key === " ")) return false;
  return !(event.key === " " && at.matches?.("button, [role=option]"));
}
