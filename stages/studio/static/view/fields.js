// @ts-check
/** Fields that several parts use: a slider with its name and value, and a pad for mixes of four. */

import { el } from "../core/dom.js";

/**
 * A slider: `field.set(value)` moves it without telling anyone.
 * @param {{ label: string, min?: number, max?: number, step?: number, words: (value: number) => string,
 *   move: (value: number) => void, settle?: () => void, hidden?: boolean }} told
 */
export function slider({ label, min = 0, max = 1, step = 0.01, words, move, settle, hidden }) {
  const input = el("input", { type: "range", min, max, step, "aria-label": label });
  const value = el("output", { class: "value" });
  const show = () => {
    const now = Number(input.value);
    input.style.setProperty("--part", `${(100 * (now - min)) / (max - min)}%`);
    input.setAttribute("aria-valuetext", words(now));
    value.textContent = words(now);
  };
  input.addEventListener("input", () => {
    show();
    move(Number(input.value));
  });
  if (settle) input.addEventListener("change", settle);
  const node = el(
    "div",
    { class: "slider" },
    hidden ? null : el("span", { "aria-hidden": "true" }, label),
    input,
    value,
  );
  const set = (/** @type {number} */ now) => {
    input.value = String(now);
    show();
  };
  return { node, input, set };
}

/** The weights of a pad's corners at a place in it: of four in a square, of three in a triangle. */
export function weightsAt(/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ count) {
  if (count === 4) return [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];
  const right = Math.min(Math.max(x - y / 2, 0), 1 - y);
  return [1 - y - right, right, y];
}

/** The place in a pad whose weights come nearest. */
export function placeOf(/** @type {number[]} */ weights) {
  const [, b, c, d] = weights;
  return d === undefined ? { x: b + c / 2, y: c } : { x: b + d, y: c + d };
}

/**
 * A square whose corners, three or four, are styles; the point in it mixes them. Arrow keys move it as well.
 * @param {{ move: (weights: number[]) => void, settle: () => void }} told
 */
export function pad({ move, settle }) {
  const knob = el("span", { class: "knob", "aria-hidden": "true" });
  const corners = [..."ABCD"].map((letter) => el("span", { class: `corner ${letter}`, "aria-hidden": "true" }));
  const node = el(
    "div",
    {
      class: "pad",
      role: "group",
      tabindex: 0,
      "aria-label": "Mix of the corners. Arrow keys move the point; each weight has a slider below.",
    },
    ...corners,
    knob,
  );
  let [at, count] = [{ x: 0, y: 0 }, 4];
  const place = () => {
    knob.style.setProperty("left", `${100 * at.x}%`);
    knob.style.setProperty("top", `${100 * at.y}%`);
  };
  const go = (/** @type {number} */ x, /** @type {number} */ y) => {
    at = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) };
    place();
    move(weightsAt(at.x, at.y, count));
  };
  const follow = (/** @type {PointerEvent} */ event) => {
    const box = node.getBoundingClientRect();
    go((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId);
    follow(event);
  });
  node.addEventListener("pointermove", (event) => node.hasPointerCapture(event.pointerId) && follow(event));
  node.addEventListener("pointerup", settle);
  node.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 0.1 : 0.02;
    /** @type {Record<string, [number, number]>} */
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    const [x, y] = moves[event.key] ?? [0, 0];
    if (!x && !y) return;
    event.preventDefault();
    event.stopPropagation();
    go(at.x + x, at.y + y);
  });
  node.addEventListener("keyup", settle);
  /** Shows weights, and the pictures of the corners. */
  const set = (/** @type {number[]} */ weights, /** @type {string[]} */ pictures) => {
    count = weights.length;
    node.classList.toggle("three", count === 3);
    corners.forEach((corner, index) => {
      corner.style.setProperty("background-image", pictures[index] ? `url("${pictures[index]}")` : "none");
      corner.textContent = pictures[index] ? "ABCD"[index] : "";
    });
    if (weights.some((weight, index) => Math.abs(weight - weightsAt(at.x, at.y, count)[index]) > 0.005))
      at = placeOf(weights);
    place();
  };
  return { node, set };
}
