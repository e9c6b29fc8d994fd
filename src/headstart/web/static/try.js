// Trying a photo: it goes to this computer's own server, and nowhere else.
import { $, ask, make, percent, sayProblem, send, takePhotos } from "/static/common.js";

const run = $("drop").dataset.run;
const start = `/runs/${encodeURIComponent(run)}`;
const LIVE_SIDE = 640; // px of a frame that is answered live
let turn = 0, photo = null, stream = null;

async function use(file) {
  const mine = ++turn;
  photo = file;
  stopCamera();
  sayProblem(null);
  try {
    const told = await send(`${start}/predict`, file);
    if (mine !== turn) return;
    show(file, told);
    await Promise.all([explain(mine, null), nearest(mine)]);
  } catch (error) {
    if (mine !== turn) return;
    $("result").hidden = true;
    sayProblem(error);
  }
}

function show(file, told) {
  $("result").hidden = false;
  $("result").dataset.probabilities = JSON.stringify(told.probabilities);
  URL.revokeObjectURL($("photo").src);
  $("photo").src = URL.createObjectURL(file);
  $("name").textContent = file.name || "pasted";
  $("label").textContent = told.label;
  $("sure").textContent = `${percent(told.probability)} sure${told.unsure ? ": below what this class needs to be believed" : ""}`;
  $("bars").replaceChildren(...bars(told.probabilities, 12, (label) =>
    make("button", { type: "button", onclick: () => explain(turn, label).catch(sayProblem) }, label)));
  $("map").removeAttribute("src");
  $("map-words").textContent = "looking for what speaks for it ...";
  $("nearest").replaceChildren();
  $("nearest-words").textContent = "comparing with the training photos ...";
}

function bars(probabilities, most, head) {
  return Object.entries(probabilities).slice(0, most).map(([label, share]) => {
    const fill = make("i");
    fill.style.width = `${100 * share}%`;
    return make("tr", {},
      make("th", { scope: "row" }, head(label)),
      make("td", { class: "num", title: String(share) }, percent(share)),
      make("td", {}, make("span", { class: "bar", "aria-hidden": "true" }, fill)));
  });
}

async function explain(mine, label) {
  try {
    const told = await send(`${start}/explain${label === null ? "" : `?class=${encodeURIComponent(label)}`}`, photo);
    if (mine !== turn) return;
    $("map").src = told.overlay;
    $("map").alt = `${told.method} for ${told.label} over the photo`;
    const sum = told.check ? ` ${told.check.law}: ${told.check.sum.toPrecision(4)} of ${told.check.target.toPrecision(4)}.` : "";
    $("map-words").textContent = `${told.method} for ${told.label}: ${told.sentence}.${sum}${told.stamps.length ? ` ${told.stamps.join("; ")}.` : ""}`;
  } catch (error) {
    if (mine === turn) $("map-words").textContent = error.message;
  }
}

async function nearest(mine) {
  try {
    const told = await send(`${start}/nearest`, photo);
    if (mine !== turn) return;
    $("nearest-words").textContent = told.missing ?? `of ${told.of} training photos; 1 is the same direction of all features`;
    $("nearest").replaceChildren(...(told.photos ?? []).map((near) => make("li", {},
      make("img", { src: `${start}/training/${near.number}`, alt: near.path, loading: "lazy" }),
      make("p", {}, make("b", {}, near.label), ` ${near.similarity.toFixed(3)}`, make("br"), make("span", { class: "soft" }, near.path)))));
  } catch (error) {
    if (mine === turn) $("nearest-words").textContent = error.message;
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("live").hidden = true;
  $("camera").textContent = "Use the camera";
}

// What the camera sees now; a longer side over `side` is scaled down.
function frame(kind, side = Infinity) {
  const [width, height] = [$("video").videoWidth, $("video").videoHeight];
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = make("canvas", { width: Math.round(scale * width), height: Math.round(scale * height) });
  canvas.getContext("2d").drawImage($("video"), 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, kind, 0.95));
}

// One answer after the other, as fast as they come, while the camera is on.
async function watch(mine) {
  while (stream === mine) {
    try {
      const told = await send(`${start}/predict`, await frame("image/jpeg", LIVE_SIDE));
      if (stream !== mine) return;
      sayProblem(null);
      $("live-label").textContent = `${told.label} ${percent(told.probability)}`;
      $("live-label").dataset.frames = Number($("live-label").dataset.frames) + 1;
      $("live-bars").replaceChildren(...bars(told.probabilities, 5, (label) => label));
    } catch (error) {
      if (stream !== mine) return;
      sayProblem(error);
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

$("camera").addEventListener("click", async () => {
  if (stream) { stopCamera(); return; }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    $("video").srcObject = stream;
    $("live").hidden = false;
    $("camera").textContent = "Stop the camera";
    await $("video").play();
  } catch (error) {
    stopCamera();
    sayProblem(new Error("there is no camera here, or the browser may not use it"));
    return;
  }
  watch(stream);
});
$("take").addEventListener("click", async () => {
  const blob = await frame("image/png");
  if (blob) use(new File([blob], "from the camera", { type: blob.type }));
});
takePhotos($("drop"), $("file"), use);
