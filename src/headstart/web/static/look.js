// Looking inside: layers, all units of one, one unit large, what excites it.
import { $, ask, make, number, percent, sayProblem, send, takePhotos } from "/static/common.js";

const place = $("look"), run = place.dataset.run, photos = Number(place.dataset.photos);
const start = `/runs/${encodeURIComponent(run)}/look`;
const state = { photo: null, layer: null, unit: 0 };
let layers = new Map(), order = [], turn = 0, shown = null;

const part = (text) => encodeURIComponent(text);
const remember = () => {
  const query = new URLSearchParams({ photo: state.photo ?? "", layer: state.layer ?? "", unit: state.unit });
  history.replaceState(null, "", `?${query}`);
};

function load(image, address) {
  return new Promise((done, fail) => {
    image.onload = done;
    image.onerror = () => fail(new Error("a picture did not arrive"));
    image.src = address;
  });
}

async function usePhoto(name, label) {
  state.photo = name;
  $("photo-name").textContent = label;
  $("input").hidden = false;
  await load($("input"), `${start}/${part(name)}/input.png`);
  await Promise.all([answer(null), showLayer()]);
}

async function answer(label, method = null) {
  const query = new URLSearchParams();
  if (label !== null) query.set("class", label);
  if (method !== null) query.set("method", method);
  const told = await ask(`${start}/${part(state.photo)}/answer?${query}`);
  $("bars").replaceChildren(...told.classes.map((one) => make("tr", {},
    make("th", { scope: "row" }, make("button", { type: "button", onclick: () => answer(one.label).catch(sayProblem) }, one.label)),
    make("td", { class: "num" }, percent(one.probability)))));
  $("map").hidden = false;
  $("map").src = told.map.overlay;
  $("map").alt = `${told.map.method} for ${told.map.label}`;
  $("map-words").textContent = `${told.map.method} for ${told.map.label}`;
}

async function showLayer() {
  const known = layers.get(state.layer);
  if (!known || !state.photo) return;
  const mine = ++turn;
  state.unit = Math.min(state.unit, known.units - 1);
  for (const button of $("stages").children) button.setAttribute("aria-pressed", String(button.dataset.name === state.layer));
  $("layer").value = state.layer;
  remember();
  const query = `view=${$("view").value}&scale=${$("scale").value}`;
  await load($("units"), `${start}/${part(state.photo)}/${part(state.layer)}/sprite.png?${query}`);
  if (mine !== turn) return;
  $("units").alt = `${known.units} units of ${state.layer}`;
  const field = known.field === null ? "" : `; each place sees ${known.field} px of the photo`;
  $("layer-words").textContent = `${state.layer}: ${known.units} units of ${known.rows} x ${known.columns}${field}`;
  await showUnit();
}

function frame() {
  const { sprite, units } = layers.get(state.layer), step = sprite.tile + sprite.gap;
  const across = sprite.across * step - sprite.gap, down = Math.ceil(units / sprite.across) * step - sprite.gap;
  const column = state.unit % sprite.across, row = Math.floor(state.unit / sprite.across);
  Object.assign($("frame").style, {
    display: "block", left: `${(100 * column * step) / across}%`, top: `${(100 * row * step) / down}%`,
    width: `${(100 * sprite.tile) / across}%`, height: `${(100 * sprite.tile) / down}%`,
  });
}

async function showUnit() {
  frame();
  remember();
  const mine = ++turn;
  const query = `view=${$("view").value}&back=${$("back").value}`;
  const told = await ask(`${start}/${part(state.photo)}/${part(state.layer)}/${state.unit}?${query}`);
  if (mine !== turn) return;
  shown = told;
  $("unit-title").textContent = `Unit ${told.unit} of ${told.layer}`;
  for (const [id, address] of [["unit", told.picture], ["projection", told.projection]]) { $(id).src = address; $(id).hidden = false; }
  const extra = [told.dead ? "dead: nothing of it passes the rectifier here" : null, told.saturated ? `${percent(told.saturated)} of its places are at the ceiling` : null].filter(Boolean);
  $("unit-words").textContent = `${told.view}: ${number(told.least)} to ${number(told.largest)}, darkest colour ${number(told.scale)}${extra.length ? `; ${extra.join("; ")}` : ""}`;
  $("projection-words").textContent = `What its largest value, ${number(told.value)} at row ${told.place[0]}, column ${told.place[1]}, comes from (${told.rule})`;
  $("projection-words").title = told.reason;
  $("numbers").hidden = told.values === null;
  if (told.values) $("values").replaceChildren(...told.values.map((row) => make("tr", {}, ...row.map((value) => make("td", {}, number(Number(value.toPrecision(3))))))));
  await patches(mine);
}

async function patches(mine) {
  $("patches").replaceChildren();
  $("patch-more").hidden = true;
  $("patch-words").textContent = "looking ...";
  for (;;) {
    const told = await ask(`${start}/${part(state.layer)}/${state.unit}/patches`);
    if (mine !== turn) return;
    if (told.missing) { $("patch-words").textContent = told.missing; return; }
    if (told.patches) { showPatches(told); return; }
    $("patch-words").textContent = told.of ? `searching: ${told.done} of ${told.of} ${told.what}` : "searching ...";
    await new Promise((done) => setTimeout(done, 700));
    if (mine !== turn) return;
  }
}

function showPatches(told) {
  $("patches").replaceChildren(...told.patches.map((patch) => {
    const image = make("img", { src: patch.picture, alt: `${patch.label ?? "photo"} ${patch.photo}` });
    const button = make("button", { type: "button", "aria-pressed": "false", title: "Click: what the unit takes from it" }, image);
    button.addEventListener("click", () => {
      const turned = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!turned));
      image.src = turned ? patch.picture : patch.projection;
    });
    return make("li", {}, button, make("p", { class: "soft" }, `${patch.label ?? ""} ${number(Number(patch.value.toPrecision(3)))}`));
  }));
  $("patch-words").textContent = "Click a patch to see what the unit takes from it.";
  $("patch-lines").textContent = `${told.lines.join("; ")}.`;
  $("patch-more").hidden = false;
}

function move(step) {
  const units = layers.get(state.layer).units;
  const next = state.unit + step;
  if (next >= 0 && next < units) { state.unit = next; showUnit().catch(sayProblem); }
}

function moveLayer(step) {
  const names = order.map((one) => one.name), at = names.indexOf(state.layer);
  const next = names[Math.min(Math.max(at + step, 0), names.length - 1)];
  if (next && next !== state.layer) chooseLayer(next);
}

function chooseLayer(name) { state.layer = name; state.unit = 0; showLayer().catch(sayProblem); }

function cycle(id, then) {
  const select = $(id);
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  then().catch(sayProblem);
}

function save() {
  const link = make("a", { href: $("units").src, download: `${run}-${state.layer}.png` });
  document.body.append(link);
  link.click();
  link.remove();
}

$("sprite").addEventListener("click", (event) => {
  if (!state.layer || !state.photo) return;
  const box = $("units").getBoundingClientRect(), { sprite, units } = layers.get(state.layer), step = sprite.tile + sprite.gap;
  const across = sprite.across * step - sprite.gap, down = Math.ceil(units / sprite.across) * step - sprite.gap;
  const column = Math.min(Math.floor((((event.clientX - box.left) / box.width) * across) / step), sprite.across - 1);
  const row = Math.floor((((event.clientY - box.top) / box.height) * down) / step);
  const unit = row * sprite.across + column;
  if (unit >= 0 && unit < units) { state.unit = unit; showUnit().catch(sayProblem); }
});
$("sprite").addEventListener("keydown", (event) => {
  if (!state.layer || !state.photo || event.ctrlKey || event.metaKey || event.altKey) return;
  const across = layers.get(state.layer).sprite.across;
  const act = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => move(-across), ArrowDown: () => move(across),
    PageUp: () => moveLayer(-1), PageDown: () => moveLayer(1), p: () => cycle("view", showLayer), t: () => cycle("scale", showLayer),
    b: () => cycle("back", showUnit), o: () => answer(null, "occlusion").catch(sayProblem), s: save,
  }[event.key];
  if (act) { event.preventDefault(); act(); }
});
for (const id of ["view", "scale"]) $(id).addEventListener("change", () => showLayer().catch(sayProblem));
$("back").addEventListener("change", () => showUnit().catch(sayProblem));
$("layer").addEventListener("change", () => chooseLayer($("layer").value));

let test = 0;
const goTo = (at) => { test = (at + photos) % photos; usePhoto(`test-${test}`, `Test photo ${test + 1} of ${photos}`).catch(sayProblem); };
$("previous").addEventListener("click", () => goTo(test - 1));
$("next").addEventListener("click", () => goTo(test + 1));
takePhotos($("look"), $("file"), async (file) => {
  try {
    sayProblem(null);
    const { photo } = await send(`${start}/photos`, file);
    await usePhoto(photo, file.name || "pasted");
  } catch (error) { sayProblem(error); }
});

async function begin() {
  const found = await ask(`${start}/layers`);
  order = found.stages.length ? found.stages : found.layers;
  layers = new Map([...found.layers, ...found.stages].map((one) => [one.name, one]));
  $("stages").replaceChildren(...found.stages.map((one) => make("button", { type: "button", "data-name": one.name, "aria-pressed": "false", onclick: () => chooseLayer(one.name) }, one.name)));
  $("layer").replaceChildren(...[...layers.values()].map((one) => make("option", { value: one.name }, `${one.name} (${one.type}, ${one.units} units)`)));
  const query = new URLSearchParams(location.search);
  const wanted = query.get("layer");
  const maps = order.filter((one) => one.rows > 1);
  state.layer = layers.has(wanted) ? wanted : (maps[Math.floor(maps.length / 2)] ?? order[0]).name;
  state.unit = Math.max(0, Number(query.get("unit")) || 0);
  const photo = query.get("photo") || (photos ? "test-0" : "");
  if (!photo) return;
  const listed = /^test-(\d+)$/.exec(photo);
  if (listed) test = Number(listed[1]);
  await usePhoto(photo, listed ? `Test photo ${test + 1} of ${photos}` : "Your photo");
}
begin().then(() => { place.dataset.ready = "1"; }, sayProblem);
