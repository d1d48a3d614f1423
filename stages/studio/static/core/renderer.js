// @ts-check
/**
 * Which picture is seen: at every change one faded from pictures at hand ("preview"), then the exact one, then its
 * refinement while the hand rests, at last that at the generator's own size. One exact request is on its way at a time;
 * a newer wish replaces the one that waits.
 */

import * as api from "./api.js";
import { Frames, KEY_STRENGTHS, frameKey } from "./frames.js";
import { REGIONS, blank, keyOf, stylesOf } from "./store.js";

/** @typedef {import("./store.js").Doc} Doc */
/** @typedef {"empty" | "waiting" | "preview" | "exact" | "refining" | "refined"} State */

const REST = 70; // ms without a change until the exact picture is asked for
const LONG_REST = 900; // ms until it is refined
const MOST_EXACT = 40;

/** Tells "change" when there is something else to see, "rest" when the exact picture came, "fault" (detail: Error). */
export class Renderer extends EventTarget {
  frames = new Frames();
  /** @type {Map<string, { bitmap: ImageBitmap, seconds: number }>} */ exact = new Map();
  /** @type {State} */ state = "empty";
  /** @type {Doc} */ doc = blank();
  /** @type {ImageBitmap | null} */ refined = null;
  /** @type {ImageBitmap | null} */ large = null; // the refined picture again, at the generator's own size
  step = 0;
  of = 0;
  seconds = 0;
  ticket = 0;
  era = 0; // pictures asked for in a former one are outdated
  steps = 0; // of refinement at rest
  side = 0; // px of a large picture; 0 if there is none
  paused = false;
  /** @type {Set<string>} */ plain = new Set(); // looks whose refinement was undone
  /** @type {boolean} */ busy = false;
  /** @type {boolean} */ fetching = false;
  /** @type {Promise<void>} */ filled = Promise.resolve();
  /** @type {number} */ timer = 0;
  /** @type {AbortController | null} */ refinement = null;

  /**
   * @param {(doc: Doc) => any} describe  a document's recipe
   * @param {(style: string) => boolean} unread  whether the server still has to read a style before its exact picture
   */
  constructor(describe, unread) {
    super();
    this.describe = describe;
    this.unread = unread;
  }

  /** Another document is to be seen. */
  show(/** @type {Doc} */ doc, hurry = false) {
    const same = this.key(doc) === this.key();
    const kept = same && this.refined && doc.refine === this.step;
    if (same && this.doc.refine && !doc.refine) this.plain.add(this.key());
    this.stop();
    this.doc = doc;
    this.ticket += 1;
    if (kept && doc.refine) {
      this.tell("refined");
      return this.large ? undefined : this.enlarge(doc.refine);
    }
    this.refined = this.large = null;
    this.step = 0;
    const known = this.exact.get(this.key());
    if (!doc.portrait) return this.tell("empty");
    if (known) {
      this.seconds = known.seconds;
      this.tell("exact");
      this.timer = window.setTimeout(() => this.rested(), REST);
    } else {
      this.tell(this.frames.blends(doc) ? "preview" : "waiting");
      this.timer = window.setTimeout(() => this.pump(), hurry ? 0 : REST);
    }
    return undefined;
  }

  /** The exact picture of the document, when it is there. */
  get picture() {
    return this.large ?? this.refined ?? this.exact.get(this.key())?.bitmap ?? null;
  }

  key(doc = this.doc) {
    return keyOf({ ...doc, refine: 0 });
  }

  tell(/** @type {State} */ state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  /** Drops every picture of portraits: the server has better ones, or none any more. */
  forget() {
    this.stop();
    this.era += 1;
    this.frames.clear();
    this.exact.clear();
    this.refined = this.large = null;
  }

  stop() {
    clearTimeout(this.timer);
    this.refinement?.abort();
    this.refinement = null;
  }

  async pump() {
    if (this.busy || this.paused || !this.doc.portrait || this.exact.has(this.key())) return;
    const { ticket, doc } = this;
    if (atFull(doc) && !this.frames.blends(doc) && stylesOf(doc).some(this.unread)) {
      // By the codes that ship there is a picture sooner.
      await this.fill(
        this.missing().filter(([, t]) => t === 1),
        ticket,
      );
      if (ticket !== this.ticket) return;
      if (this.frames.blends(doc)) this.tell("preview");
    }
    this.busy = true;
    try {
      const recipe = { ...this.describe(doc), refine: 0 };
      const made = await api.render({ recipe, portrait: doc.portrait ?? "", ticket, purpose: "exact" });
      if (ticket === this.ticket) this.arrived(doc, made);
    } catch (error) {
      const old = error instanceof api.Fault && error.status === 409;
      if (!old && ticket === this.ticket) this.dispatchEvent(new CustomEvent("fault", { detail: error }));
    } finally {
      this.busy = false;
    }
    if (ticket === this.ticket) return;
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.pump(), REST);
  }

  arrived(/** @type {Doc} */ doc, /** @type {{ bitmap: ImageBitmap, seconds: number }} */ made) {
    this.exact.set(this.key(doc), made);
    for (const oldest of this.exact.keys()) {
      if (this.exact.size <= MOST_EXACT) break;
      this.exact.delete(oldest);
    }
    const alone = frameOf(doc);
    if (alone) this.frames.set(alone, made.bitmap);
    this.seconds = made.seconds;
    this.tell("exact");
    this.rested();
  }

  /** The hand rests: pictures to fade between are fetched, then the picture is refined. */
  async rested() {
    this.dispatchEvent(new Event("rest"));
    const { ticket } = this;
    await this.fill(this.missing(), ticket);
    if (ticket !== this.ticket || this.paused) return;
    const steps = this.doc.refine || this.steps;
    if (!steps || (!this.doc.refine && this.plain.has(this.key()))) return;
    this.timer = window.setTimeout(() => this.refine(steps), this.doc.refine ? 0 : LONG_REST);
  }

  /** Pictures to fade between that are not here: of the document's styles, the full ones first. */
  missing() {
    const [full, ...others] = KEY_STRENGTHS.map((t) => stylesOf(this.doc).map((style) => [style, t]));
    const wanted = [...full, [null, 0], ...others.flat()];
    return /** @type {[string | null, number][]} */ (wanted).filter(
      ([style, t]) => !this.frames.held.has(frameKey(this.doc, style, t)),
    );
  }

  /** Fetches pictures to fade between, one after the other, as long as nothing else is wished. */
  fill(/** @type {[string | null, number][]} */ wanted, /** @type {number} */ ticket) {
    this.filled = this.filled.then(async () => {
      for (const [style, t] of wanted) {
        if (ticket !== this.ticket || this.busy || this.paused) return;
        // Without this picture there is no preview, nothing worse; the next rest asks for it again.
        await this.fetchFrame(style, t).catch(() => undefined);
      }
    });
    return this.filled;
  }

  async fetchFrame(/** @type {string | null} */ style, /** @type {number} */ t) {
    const { era, doc } = this;
    if (!doc.portrait) return;
    this.fetching = true;
    try {
      const recipe = this.describe(withStyle(doc, style, t));
      const made = await api.render({ recipe, portrait: doc.portrait, ticket: this.ticket, purpose: "keyframe" });
      if (era === this.era) this.frames.set(frameKey(doc, style, t), made.bitmap);
    } finally {
      this.fetching = false;
    }
  }

  /** Fetches a style's full picture when nothing else is to do, so that it can be seen before it is chosen. */
  async peek(/** @type {string} */ style) {
    if (this.frames.held.has(frameKey(this.doc, style, 1))) return true;
    if (this.busy || this.fetching || this.refinement || this.paused || !this.doc.portrait) return false;
    await this.fill([[style, 1]], this.ticket);
    return this.frames.held.has(frameKey(this.doc, style, 1));
  }

  async refine(/** @type {number} */ steps) {
    const { ticket, doc } = this;
    const stop = (this.refinement = new AbortController());
    try {
      const recipe = { ...this.describe(doc), refine: steps };
      for await (const { step, of, bitmap } of api.refine(
        { recipe, portrait: doc.portrait ?? "", ticket },
        stop.signal,
      )) {
        if (stop.signal.aborted) return;
        if (!step) continue; // the picture that is here already
        [this.step, this.of, this.refined] = [step, of, bitmap];
        this.tell(step < of ? "refining" : "refined");
      }
      if (stop.signal.aborted || !this.refined) return;
      this.tell("refined");
      await this.enlarge(steps, stop.signal);
    } catch (error) {
      if (!stop.signal.aborted) this.dispatchEvent(new CustomEvent("fault", { detail: error }));
    } finally {
      if (this.refinement === stop) this.refinement = null;
    }
  }

  /** Fetches the refined picture at the generator's own size. */
  async enlarge(/** @type {number} */ steps, /** @type {AbortSignal | undefined} */ signal = undefined) {
    const { ticket, doc } = this;
    if (!this.side) return;
    const recipe = { ...this.describe(doc), refine: steps, size: this.side };
    // Without it the small one stays, nothing worse.
    const made = await api
      .render({ recipe, portrait: doc.portrait ?? "", ticket, purpose: "large" }, signal)
      .catch(() => null);
    if (!made || signal?.aborted || ticket !== this.ticket || !this.refined) return;
    this.large = made.bitmap;
    this.tell("refined");
  }

  /** Ends refinement where it is; what was reached stays. */
  hold() {
    this.stop();
    if (this.refined) this.tell("refined");
  }

  /** Shows the picture of one forward pass again, and leaves it so. */
  unrefine() {
    this.stop();
    this.plain.add(this.key());
    this.refined = this.large = null;
    this.step = 0;
    this.tell(this.exact.has(this.key()) ? "exact" : "waiting");
  }
}

/** The document with one style alone, everywhere at one strength. */
export function withStyle(/** @type {Doc} */ doc, /** @type {string | null} */ style, /** @type {number} */ t) {
  /** @type {import("./store.js").Mix} */ const mix = style ? [[style, 1]] : [];
  const regions = /** @type {any} */ (Object.fromEntries(REGIONS.map((name) => [name, { mix, t }])));
  return { ...doc, regions, refine: 0 };
}

/** Whether every region takes all of its style. */
const atFull = (/** @type {Doc} */ doc) =>
  REGIONS.every((name) => doc.regions[name].mix.length && doc.regions[name].t === 1);

/** The key as which a document's picture is one to fade with, if it is. */
function frameOf(/** @type {Doc} */ doc) {
  const [first, ...others] = REGIONS.map((name) => doc.regions[name]);
  if (others.some((part) => JSON.stringify(part) !== JSON.stringify(first))) return null;
  if (!first.mix.length) return frameKey(doc, null, 0);
  return first.mix.length === 1 && [0.5, 1].includes(first.t) ? frameKey(doc, first.mix[0][0], first.t) : null;
}
