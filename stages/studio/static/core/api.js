// @ts-check
/** The server's endpoints, and nothing of the page. Every failure is a Fault: what is wrong, and a way out. */

export class Fault extends Error {
  constructor(/** @type {string} */ message, wayOut = "", status = 0) {
    super(message);
    this.wayOut = wayOut;
    this.status = status;
  }
}

/** This tab, so that another one's pictures do not stop ours. */
export const PAGE = [...crypto.getRandomValues(new Uint8Array(8))]
  .map((byte) => byte.toString(16).padStart(2, "0"))
  .join("");

const away = new EventTarget();

/** Calls `listener` whenever the server did not answer at all. */
export const whenAway = (/** @type {() => void} */ listener) => away.addEventListener("away", listener);

/**
 * @param {string} path
 * @param {RequestInit & { json?: any }} [options]
 * @returns {Promise<Response>}
 */
export async function call(path, { json, ...options } = {}) {
  if (json !== undefined) {
    options = {
      method: "POST",
      body: JSON.stringify(json),
      headers: { "content-type": "application/json" },
      ...options,
    };
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    away.dispatchEvent(new Event("away"));
    throw new Fault("The studio's server does not answer.", "It may have been stopped: start `hypernst studio` again.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Fault(told.error ?? `The server answered ${answer.status}.`, told.way_out ?? "", answer.status);
}

const json = async (/** @type {string} */ path, /** @type {any} */ options = {}) => (await call(path, options)).json();
const raw = (/** @type {Blob} */ body) => ({
  method: "POST",
  body,
  headers: { "content-type": "application/octet-stream" },
});
const named = (/** @type {string} */ path, /** @type {string} */ name) => `${path}?name=${encodeURIComponent(name)}`;

export const about = () => json("/api/about");
export const job = (/** @type {string} */ id) => json(`/api/jobs/${id}`);
export const portraits = () => json("/api/portraits");
export const portrait = (/** @type {string} */ id) => json(`/api/portraits/${id}`);
export const openPortrait = (/** @type {Blob} */ file, /** @type {string} */ name) =>
  json(named("/api/portraits", name), raw(file));
export const samples = () => json("/api/samples");
export const sampleImage = (/** @type {string} */ name) => `/api/samples/${name}`;
export const chooseFace = (/** @type {string} */ id, /** @type {any} */ choice) =>
  json(`/api/portraits/${id}/face`, { json: choice });
export const forgetPortrait = (/** @type {string} */ id) => call(`/api/portraits/${id}`, { method: "DELETE" });
export const forgetEverything = () => call("/api/forget", { method: "POST" });
export const portraitImage = (/** @type {string} */ id, /** @type {string} */ what) =>
  bitmap(`/api/portraits/${id}/${what}`);

export const styles = (/** @type {Record<string, string>} */ query = {}) =>
  json(`/api/styles?${new URLSearchParams(query)}`);
export const addStyle = (/** @type {Blob} */ file, /** @type {string} */ name) =>
  json(named("/api/styles", name), raw(file));
export const thumb = (/** @type {string} */ id) => `/api/styles/${id}/thumb`;

/** Places in [0, 1] of the styles on a map: `{ ids, places }`, places x and y in turn. */
export async function map(/** @type {string} */ region) {
  return json(`/api/map?region=${region}`);
}

async function bitmap(/** @type {string} */ path) {
  return createImageBitmap(await (await call(path)).blob());
}

/**
 * One picture. Of "exact" ones the newest ticket of this page wins, older ones are refused with 409; a "keyframe" waits
 * for these, a "large" one for whatever else is to do.
 * @param {{ recipe: any, portrait: string, ticket: number, purpose: "exact" | "keyframe" | "large" }} asked
 * @param {AbortSignal} [signal]
 */
export async function render(asked, signal) {
  const answer = await call("/api/render", { json: { ...asked, page: PAGE }, signal });
  return { seconds: Number(answer.headers.get("x-seconds")), bitmap: await createImageBitmap(await answer.blob()) };
}

/**
 * The steps of refinement, each as soon as it is there; aborting the signal ends it within a step.
 * @param {{ recipe: any, portrait: string, ticket: number }} asked
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ step: number, of: number, bitmap: ImageBitmap }>}
 */
export async function* refine(asked, signal) {
  const answer = await call("/api/refine", { json: { ...asked, page: PAGE }, signal });
  const reader = /** @type {ReadableStream<BufferSource>} */ (answer.body)
    .pipeThrough(new TextDecoderStream())
    .getReader();
  for (let held = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop() ?? "";
    for (const line of lines.map((text) => JSON.parse(text))) {
      if (line.error) throw new Fault(line.error, line.way_out);
      if (line.image) yield { step: line.step, of: line.of, bitmap: await createImageBitmap(pictureOf(line.image)) };
    }
  }
}

const pictureOf = (/** @type {string} */ base64) =>
  new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);

/** A file of the picture, or the job that makes it: `{ file, name }` or `{ job }`. */
export async function exported(/** @type {any} */ asked) {
  const answer = await call("/api/export", { json: { ...asked, page: PAGE } });
  return answer.status === 202 ? answer.json() : fileOf(answer);
}

export const jobFile = async (/** @type {string} */ job) => fileOf(await call(`/api/exports/${job}`));

async function fileOf(/** @type {Response} */ answer) {
  const told = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "");
  return { file: await answer.blob(), name: told ? told[1] : "hypernst" };
}
