// What every page uses: asking the server, elements whose text is text, numbers, and grids of numbers.

export const $ = (id) => document.getElementById(id);

export class Refused extends Error {}

/** Ask the server; JSON or an error whose text is for people. */
export async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { ...options, headers: { Accept: "application/json", ...(options.headers ?? {}) } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("headstart ui does not answer; is it still running?");
  }
  const document_ = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(document_.error?.message ?? "the server could not answer");
  return document_;
}

export const send = (address, blob) => ask(address, { method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" } });

/** An element with attributes and children; strings become text, never markup. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A whole number as it is, any other with four digits. */
export function number(value) {
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(4)));
}

export function percent(share) {
  if (share === 0 || share === 1) return `${100 * share} %`;
  const text = (100 * share).toFixed(1);
  return `${{ "100.0": ">99.9", "0.0": "<0.1" }[text] ?? text} %`;
}

export function sayProblem(error) {
  const place = $("problem");
  if (error && !(error instanceof Refused) && error.name !== "AbortError") console.error(error);
  if (place) place.textContent = error && error.name !== "AbortError" ? error.message : "";
}

/** Colours of signed numbers: blue below 0, orange above. */
export function shade(value, limit) {
  const share = limit > 0 ? Math.min(1, Math.abs(value) / limit) : 0;
  return value < 0 ? `rgb(0 114 178 / ${0.75 * share})` : `rgb(213 94 0 / ${0.75 * share})`;
}

/**
 * A grid of numbers that a pointer or the arrow keys go through.
 *
 * @param {HTMLElement} place where it goes; what was there is replaced
 * @param {number[][]} values
 * @param {object} how label(r, c): what a screen reader says; enter(r, c), leave(); text(v, r, c); grey: shades of grey;
 *   kind(r, c): a class; quiet: no stop for the keyboard
 * @returns {HTMLElement[][]} the cells
 */
export function grid(place, values, how = {}) {
  const limit = Math.max(...values.flat().map(Math.abs), 0);
  const box = make("div", { class: "grid", role: "grid" });
  box.style.gridTemplateColumns = `repeat(${values[0].length}, auto)`;
  const cells = values.map((row, r) => {
    const line = make("div", { role: "row" });
    line.style.display = "contents";
    const made = row.map((value, c) => {
      const text = how.text ? how.text(value, r, c) : number(value);
      const cell = make("button", {
        type: "button", role: "gridcell", tabindex: !how.quiet && r === 0 && c === 0 ? 0 : -1,
        "aria-label": how.label ? how.label(r, c) : text, class: how.kind ? how.kind(r, c) : "",
      }, text);
      if (how.grey) {
        const level = limit > 0 ? Math.round(255 * value / limit) : 0;
        cell.style.background = `rgb(${level} ${level} ${level})`;
        cell.style.color = level > 130 ? "#16191d" : "#e8eaed";
      } else if (!how.plain) cell.style.backgroundImage = `linear-gradient(${shade(value, limit)}, ${shade(value, limit)})`;
      if (how.enter) {
        cell.addEventListener("pointerenter", () => how.enter(r, c));
        cell.addEventListener("focus", () => how.enter(r, c));
        cell.addEventListener("click", () => how.enter(r, c));
      }
      return cell;
    });
    line.append(...made);
    box.append(line);
    return made;
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    for (const [r, row] of cells.entries()) {
      const c = row.indexOf(document.activeElement);
      if (c < 0) continue;
      const next = cells[r + step[0]]?.[c + step[1]];
      if (next) { row[c].tabIndex = -1; next.tabIndex = 0; next.focus(); }
      break;
    }
  });
  place.replaceChildren(box);
  return cells;
}

export function mark(cells, name, at) {
  cells.flat().forEach((cell) => cell.classList.remove(name));
  for (const [r, c] of at) cells[r]?.[c]?.classList.add(name);
}

/** Take photos that are dropped on a place, pasted anywhere, or chosen in a file field. */
export function takePhotos(place, field, use) {
  const first = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/") || /\.\w{3,4}$/.test(file.name));
  const take = (file) => { if (file) use(file); };
  field.addEventListener("change", () => { take(field.files[0]); field.value = ""; });
  document.addEventListener("paste", (event) => take(first(event.clipboardData?.files)));
  for (const kind of ["dragover", "dragenter"]) document.addEventListener(kind, (event) => { event.preventDefault(); place.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) place.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    take(first(event.dataTransfer?.files));
  });
}

/** A chart of lines: series of {values, kind}; x is the place in the list. */
export function chart(place, series, { log = false, label = "" } = {}) {
  const wide = 480, high = 240, left = 52, bottom = 26;
  const turn = (value) => (log ? Math.log10(Math.max(value, 1e-12)) : value);
  const all = series.flatMap((one) => one.values).filter(Number.isFinite).map(turn);
  if (!all.length) { place.replaceChildren(); return; }
  let low = Math.min(...all), top = Math.max(...all);
  if (!log) low = Math.min(low, 0);
  if (top - low < 1e-9) top = low + 1;
  const longest = Math.max(...series.map((one) => one.values.length), 2);
  const x = (at) => left + ((wide - left - 12) * at) / (longest - 1);
  const y = (value) => 10 + (high - bottom - 10) * (1 - (turn(value) - low) / (top - low));
  const picture = draw("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": label });
  picture.append(draw("path", { class: "axis", d: `M${left} 10V${high - bottom}H${wide - 12}` }));
  for (const [value, place_] of [[top, 18], [low, high - bottom]]) {
    const text = log ? `1e${Math.round(value) || 0}` : number(Number(value.toPrecision(3)));
    picture.append(draw("text", { x: left - 6, y: place_, "text-anchor": "end" }, text));
  }
  for (const [at, text] of [[0, "1"], [longest - 1, String(longest)]]) picture.append(draw("text", { x: x(at), y: high - 8, "text-anchor": "middle" }, text));
  for (const one of series) {
    const points = one.values.map((value, at) => (Number.isFinite(value) ? `${x(at).toFixed(1)} ${y(value).toFixed(1)}` : null)).filter(Boolean);
    if (points.length) picture.append(draw("path", { class: one.kind, d: `M${points.join("L")}` }));
  }
  place.replaceChildren(picture);
}
