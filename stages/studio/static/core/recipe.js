// @ts-check
/** Documents to recipes and back. A recipe names portrait and styles by the sha256 of their files. */

import { REGIONS, blank, normalised, stylesOf } from "./store.js";

/** @typedef {import("./store.js").Doc} Doc */

const KEYWORD = "hypernst\0\0\0\0\0"; // of the text chunk, which is neither compressed nor translated
const MOST_JSON = 1 << 16; // bytes
const MOST_BYTES = 1 << 18; // of a PNG in which its recipe lies

/** A number without the noise of floating point, so that recipes read well. */
const tidy = (/** @type {number} */ value) => Number(value.toFixed(6));

/**
 * The recipe of a document.
 * @param {Doc} doc
 * @param {{ profile: string, weights: Record<string, string>, directions: string }} about
 * @param {any} portrait  as the server tells it
 * @param {Map<string, any>} styles
 */
export function toRecipe(doc, about, portrait, styles) {
  const letters = new Map(stylesOf(doc).map((id, place) => [id, "abcdefghijklmnop"[place]]));
  const regions = REGIONS.map((name) => {
    const { mix, t } = doc.regions[name];
    const taken = normalised(mix).filter(([, weight]) => tidy(weight) > 0);
    const weights = taken.map(([, weight]) => tidy(weight));
    if (weights.length) weights[0] = 1 - weights.slice(1).reduce((sum, weight) => sum + weight, 0);
    return [
      name,
      {
        mix: Object.fromEntries(taken.map(([id], place) => [letters.get(id), weights[place]])),
        t: mix.length ? tidy(t) : 0,
      },
    ];
  });
  const edits = Object.fromEntries(Object.entries(doc.edits).filter(([, value]) => value !== 0));
  const edited = Object.keys(edits).length > 0;
  return {
    hypernst: 1,
    profile: about.profile,
    weights: edited ? { ...about.weights, directions: about.directions } : about.weights,
    portrait: portrait.portrait,
    styles: Object.fromEntries([...letters].map(([id, letter]) => [letter, entry(styles.get(id))])),
    regions: Object.fromEntries(regions),
    refine: doc.refine,
    ...(edited ? { edits } : {}),
  };
}

const entry = (/** @type {any} */ style) => ({ key: style.key, sha256: style.sha256, title: style.title });

/**
 * The document of a recipe, and what of it is not here: `lacking` are titles of styles.
 * @param {any} recipe
 * @param {{ profile: string, weights: Record<string, string>, directions: string }} about
 * @param {Iterable<any>} styles
 * @param {Iterable<any>} portraits
 * @returns {{ doc: Doc, lacking: string[], differs: boolean }}
 */
export function fromRecipe(recipe, about, styles, portraits) {
  const ids = new Map([...styles].map((style) => [style.sha256, style.id]));
  const letters = new Map(Object.entries(recipe.styles).map(([letter, style]) => [letter, ids.get(style.sha256)]));
  const doc = blank();
  doc.portrait = [...portraits].find((one) => same(one.portrait, recipe.portrait))?.id ?? null;
  for (const name of REGIONS) {
    const { mix, t } = recipe.regions[name];
    const taken = Object.entries(mix).map(([letter, weight]) => [letters.get(letter), Number(weight)]);
    doc.regions[name] = { mix: /** @type {any} */ (taken), t: taken.length ? Number(t) : 1 };
  }
  const told = REGIONS.map((name) => JSON.stringify(doc.regions[name]));
  doc.whole = told.every((one) => one === told[0]);
  doc.edits = { ...recipe.edits };
  doc.refine = recipe.refine ?? 0;
  const lacking = [...letters]
    .filter(([, id]) => !id)
    .map(([letter]) => recipe.styles[letter].title ?? recipe.styles[letter].key ?? letter);
  /** @type {Record<string, string>} */ const own = { ...about.weights, directions: about.directions };
  const differs =
    recipe.profile !== about.profile || Object.entries(recipe.weights).some(([name, value]) => own[name] !== value);
  return { doc, lacking, differs };
}

const same = (/** @type {any} */ one, /** @type {any} */ other) =>
  ["sha256", "face", "no_face"].every((name) => one[name] === other[name]);

/** The recipe's JSON in a file: itself, or the text chunk of a PNG; null where there is none. */
export async function recipeIn(/** @type {Blob} */ file) {
  const head = new DataView(await file.slice(0, MOST_BYTES).arrayBuffer());
  if (head.byteLength < 8 || head.getUint32(0) !== 0x89504e47)
    return file.size <= MOST_JSON && (await file.text()).trimStart().startsWith("{") ? file.text() : null;
  for (let at = 8; at + 8 < head.byteLength; at += 12 + head.getUint32(at)) {
    const [kind, body] = [latin(head, at + 4, 4), latin(head, at + 8, KEYWORD.length)];
    if (kind === "iTXt" && body === KEYWORD)
      return new TextDecoder().decode(
        new Uint8Array(head.buffer, at + 8 + KEYWORD.length, head.getUint32(at) - KEYWORD.length),
      );
  }
  return null;
}

const latin = (/** @type {DataView} */ view, /** @type {number} */ at, /** @type {number} */ length) =>
  String.fromCharCode(...new Uint8Array(view.buffer, at, Math.min(length, view.byteLength - at)));

/** An address that opens the studio with this recipe; it leaves this machine only if the person sends it. */
export function toLink(/** @type {any} */ recipe) {
  const bytes = new TextEncoder().encode(JSON.stringify(recipe));
  const text = btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
  return `${location.origin}/#recipe=${text}`;
}

/** The recipe's JSON in an address, or null. */
export function fromLink(/** @type {string} */ hash) {
  const text = new URLSearchParams(hash.replace(/^#/, "")).get("recipe");
  if (!text) return null;
  try {
    const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return new TextDecoder().decode(Uint8Array.from(bytes, (letter) => letter.charCodeAt(0)));
  } catch {
    return "";
  }
}
