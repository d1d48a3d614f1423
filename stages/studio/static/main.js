// @ts-check
/** Starts the page: asks the server what it is, puts the parts together, takes files in, follows the connection. */

import { App, isReading } from "./app.js";
import * as api from "./core/api.js";
import { byId, el, tell } from "./core/dom.js";
import { fromLink, recipeIn } from "./core/recipe.js";
import { Batch } from "./view/batch.js";
import { ask, paragraph } from "./view/dialog.js";
import { History } from "./view/history.js";
import { listen } from "./view/keys.js";
import { StyleMap } from "./view/map.js";
import { Portraits } from "./view/portraits.js";
import { Settings } from "./view/settings.js";
import { Stage } from "./view/stage.js";
import { Styles } from "./view/styles.js";
import { Take } from "./view/take.js";

const REFINE = 10; // steps at rest
const BACK = 4000; // ms for which the return of the server is told

const app = new App();
const stage = (app.stage = new Stage(
  app.renderer,
  (region) => app.setTarget(region),
  () => isReading(app.portrait),
));
const styles = new Styles(app);
const settings = new Settings(app, byId("settings"));
const portraits = new Portraits(app);
new History(app);
const batch = new Batch(app, portraits);
const map = new StyleMap(app);
const take = new Take(app, () => byId("file").click());
listen(app, { styles, map, take });

/** Files that were chosen or dropped: a recipe, a portrait, or several. */
async function bring(/** @type {File[]} */ files) {
  const recipes = await Promise.all(files.map(recipeIn));
  const pictures = files.filter((_, place) => recipes[place] === null);
  if (pictures.length > 1) await batch.start(pictures);
  else if (pictures.length) {
    batch.toggle(false);
    if (await portraits.open(pictures[0])) await take.resume();
  }
  const recipe = recipes.find((text) => text !== null);
  if (recipe) await take.bring(recipe);
}

/** Pictures whose look is wanted. */
async function bringStyles(/** @type {File[]} */ files) {
  await styles.add(files);
  await take.resume();
}

byId("file").addEventListener("change", () => {
  const files = [...byId("file").files];
  byId("file").value = "";
  bring(files);
});
byId("style-file").addEventListener("change", () => {
  const files = [...byId("style-file").files];
  byId("style-file").value = "";
  bringStyles(files);
});
byId("undo").addEventListener("click", () => app.store.undo());
byId("redo").addEventListener("click", () => app.store.redo());
byId("keep").addEventListener("click", () => app.keep());
byId("unrefine").addEventListener("click", () => app.unrefine());
app.store.addEventListener("change", () => {
  byId("undo").disabled = !app.store.past.length;
  byId("redo").disabled = !app.store.future.length;
});
app.addEventListener("full", () => tell("A look takes at most 8 styles."));
app.renderer.addEventListener("fault", (/** @type {any} */ event) => app.events.gone || tell(event.detail));
byId("refine-at-rest").addEventListener("change", () => {
  app.renderer.steps = byId("refine-at-rest").checked ? REFINE : 0;
  if (app.renderer.steps) app.renderer.show(app.store.doc);
  else app.renderer.hold();
});

for (const button of document.querySelectorAll(".tabs button")) {
  button.addEventListener("click", () => {
    const tab = /** @type {HTMLElement} */ (button).dataset.tab ?? "styles";
    byId("studio").dataset.tab = tab;
    for (const other of document.querySelectorAll(".tabs button"))
      other.setAttribute("aria-pressed", String(other === button));
  });
}
byId("studio").dataset.tab = "styles";

/** Colours as the system has them, light, or dark; the choice stays in this browser. */
function theme(/** @type {string} */ name) {
  document.documentElement.dataset.theme = name;
  const words = `Colours: ${{ light: "light", dark: "dark" }[name] ?? "as the system"}`;
  byId("theme").title = words;
  byId("theme").setAttribute("aria-label", words);
  localStorage.setItem("theme", name);
}
theme(localStorage.getItem("theme") ?? "system");
byId("theme").addEventListener("click", () => {
  const names = ["system", "light", "dark"];
  theme(names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length]);
});

// Files may be dropped anywhere; over the styles they become styles.
const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
const overStyles = (/** @type {Event} */ event) =>
  Boolean(/** @type {HTMLElement} */ (event.target).closest?.("#drop-style, #styles"));
document.addEventListener("dragenter", (event) => hasFiles(event) && (byId("drop").hidden = false));
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  for (const zone of ["drop-style", "drop-portrait"])
    byId(zone).classList.toggle("over", (zone === "drop-style") === overStyles(event));
});
document.addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("drop").hidden = true));
document.addEventListener("drop", (event) => {
  byId("drop").hidden = true;
  if (!event.dataTransfer?.files.length) return;
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (overStyles(event)) bringStyles(files);
  else bring(files);
});

byId("about-open").addEventListener("click", () => {
  const { version, profile, device, terms = [] } = app.about ?? {};
  ask("About", [
    paragraph("Faces are made by networks from the portrait you give. Ask those whom you show."),
    paragraph("Pictures saved here carry the mark of a generated picture. Nothing leaves this machine."),
    paragraph("The networks are for research use only. What they and the paintings are, and under which terms:"),
    el(
      "ul",
      { class: "terms" },
      ...terms.map((/** @type {any} */ { what, licence }) => el("li", {}, what, el("span", {}, licence))),
    ),
    paragraph(`HyperNST ${version}, profile ${profile}, on ${device}.`),
  ]);
});
byId("forget").addEventListener("click", async () => {
  const words =
    "Portraits, your own styles, the history and all that was computed from them are removed from this machine.";
  if (
    (await ask(
      "Forget everything?",
      [paragraph(words)],
      [
        ["Cancel", ""],
        ["Forget everything", "yes", "danger"],
      ],
    )) !== "yes"
  )
    return;
  try {
    await api.forgetEverything();
    portraits.clear();
    batch.clear();
    await styles.load();
    tell("Everything is forgotten.");
  } catch (error) {
    tell(/** @type {Error} */ (error));
  }
});

/** A line across the page, until it is told otherwise. */
function banner(/** @type {string} */ words, good = false) {
  byId("banner").textContent = words;
  byId("banner").hidden = !words;
  byId("banner").classList.toggle("good", good);
}
app.events.addEventListener("away", () => {
  app.renderer.paused = true;
  banner("The studio's server has stopped. Start hypernst studio again: the page goes on by itself.");
});
app.events.addEventListener("locked", () =>
  banner("The studio was started anew: open the address that hypernst studio printed."),
);
app.events.addEventListener("back", async (/** @type {any} */ event) => {
  banner("The server is back.", true);
  setTimeout(() => app.renderer.paused || banner(""), BACK);
  try {
    app.about = event.detail.about;
    if (event.detail.other) {
      for (const { file } of app.ownStyles.values()) await app.addStyle(file);
      await styles.load();
      await allStyles();
      await portraits.restore();
    }
    app.renderer.paused = false;
    app.renderer.show(app.store.doc, true);
  } catch (error) {
    tell(/** @type {Error} */ (error));
  }
});

/** Waits for the styles that the server finds in a cache and in folders after its start; a recipe may wait for them. */
async function allStyles() {
  if (!app.about.shelf) return;
  await app.events.wait(app.about.shelf).catch(tell);
  await styles.load();
  await take.resume();
}

/** A look in the address's fragment; it is taken out, so that a reload does not bring it again. */
async function fromAddress() {
  const recipe = fromLink(location.hash);
  if (recipe === null) return;
  window.history.replaceState(null, "", location.pathname);
  await take.bring(recipe);
}

async function start() {
  try {
    app.about = await api.about();
    app.renderer.steps = app.about.refine ? REFINE : 0;
    app.renderer.side = app.about.large;
    byId("refine-choice").hidden = !app.about.refine;
    app.events.start(app.about.instance);
    await styles.load();
    app.dispatchEvent(new Event("ready"));
    app.store.reset();
    await allStyles();
    await fromAddress();
    window.addEventListener("hashchange", fromAddress);
  } catch (error) {
    const locked = error instanceof api.Fault && error.status === 403;
    banner(
      locked
        ? "Open the address that hypernst studio printed: it carries the key to this page."
        : /** @type {Error} */ (error).message,
    );
  }
}

settings.draw();
start();
