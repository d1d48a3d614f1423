// @ts-check
/** What the server tells by itself: the jobs it works on, and whether it is there at all. */

import { Fault, about, job, whenAway } from "./api.js";
import { pause } from "./dom.js";

/**
 * @typedef {{ job: string, kind: string, about: string, state: string, what: string, done: number, of: number,
 *   left: number | null, error?: string, way_out?: string }} Job
 */

/**
 * Tells "job" (detail: Job), "portrait" (detail: its id and state), "away" when the server is gone, "locked" when it
 * does not know this browser any more, and "back" (detail: what it says of itself, and whether it is another one).
 */
export class Events extends EventTarget {
  /** @type {Map<string, Job>} */ jobs = new Map();
  /** @type {Map<string, { keep: (job: Job) => void, fail: (error: Error) => void }>} */ waiting = new Map();
  /** @type {EventSource | null} */ source = null;
  instance = "";
  gone = false;

  /** Begins to listen to the server that `instance` tells from its successors. */
  start(/** @type {string} */ instance) {
    this.instance = instance;
    this.listen();
    whenAway(() => this.lost());
  }

  listen() {
    this.source?.close();
    this.source = new EventSource("/api/events");
    this.source.addEventListener("job", (event) => this.told(JSON.parse(event.data)));
    this.source.addEventListener("portrait", (event) =>
      this.dispatchEvent(new CustomEvent("portrait", { detail: JSON.parse(event.data) })),
    );
    this.source.addEventListener("error", () => this.lost());
  }

  told(/** @type {Job} */ job) {
    this.jobs.set(job.job, job);
    this.dispatchEvent(new CustomEvent("job", { detail: job }));
    const waiting = this.waiting.get(job.job);
    if (!waiting || !["done", "failed", "cancelled"].includes(job.state)) return;
    this.waiting.delete(job.job);
    if (job.state === "done") waiting.keep(job);
    else waiting.fail(new Fault(job.error ?? "It was stopped.", job.way_out ?? ""));
  }

  /** The job when it is done. Rejects with a Fault when it failed or the server was lost. */
  wait(/** @type {string} */ id) {
    return new Promise((keep, fail) => {
      this.waiting.set(id, { keep, fail });
      const known = this.jobs.get(id);
      if (known) this.told(known);
      else this.inquire(id);
    });
  }

  /** Asks for a job of which nothing was heard: it may have ended before the server's events reached us. */
  async inquire(/** @type {string} */ id) {
    await pause(1000);
    if (this.waiting.has(id) && !this.jobs.has(id))
      this.told(await job(id).catch(() => ({ job: id, state: "failed" })));
  }

  async lost() {
    if (this.gone) return;
    // A stream may break while the server lives on.
    this.gone = true;
    let told = await this.ask();
    if (!told) {
      this.dispatchEvent(new Event("away"));
      for (const { fail } of this.waiting.values())
        fail(new Fault("The studio's server was stopped.", "The page goes on when it is back."));
      this.waiting.clear();
      while (!(told = await this.ask())) await pause(1000);
    } else await pause(1000);
    this.gone = false;
    if (told === "locked") return this.dispatchEvent(new Event("locked"));
    const other = told.instance !== this.instance;
    this.instance = told.instance;
    this.listen();
    return this.dispatchEvent(new CustomEvent("back", { detail: { about: told, other } }));
  }

  /** What the server says of itself, "locked" when it does not know us any more, null when it is away. */
  async ask() {
    try {
      return await about();
    } catch (error) {
      return error instanceof Fault && error.status === 403 ? "locked" : null;
    }
  }
}
