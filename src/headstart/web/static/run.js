// A run's page: every number of the confusion matrix opens exactly its photos.
import { $, ask, make, percent, sayProblem } from "/static/common.js";

const run = $("matrix").dataset.run;
const state = { label: 0, predicted: 0, from: 0, total: 0, each: 1 };

async function show() {
  const address = `/runs/${encodeURIComponent(run)}/photos?label=${state.label}&predicted=${state.predicted}&from=${state.from}`;
  const found = await ask(address);
  state.total = found.total;
  state.each = found.each;
  const first = found.photos[0];
  $("cell").hidden = false;
  $("cell-title").textContent = first ? `${first.label} named ${first.predicted}: ${found.total} photo${found.total === 1 ? "" : "s"}` : "No photos";
  $("cell-photos").replaceChildren(...found.photos.map((photo) => make("li", { "data-number": photo.number },
    found.pictures
      ? make("a", { href: `/runs/${encodeURIComponent(run)}/photos/${photo.number}?large=1` }, make("img", { src: `/runs/${encodeURIComponent(run)}/photos/${photo.number}`, alt: photo.path, loading: "lazy" }))
      : make("span", { class: "gone" }, "photo not known here"),
    make("p", {}, percent(photo.probability), make("br"), make("span", { class: "soft" }, photo.path)))));
  const last = Math.min(state.from + found.each, found.total);
  $("cell-place").textContent = found.total ? `${state.from + 1} to ${last} of ${found.total}, the surest first` : "";
  $("before").disabled = state.from === 0;
  $("after").disabled = last >= found.total;
}

function open(button) {
  for (const other of document.querySelectorAll("#matrix button")) other.setAttribute("aria-pressed", String(other === button));
  Object.assign(state, { label: button.dataset.label, predicted: button.dataset.predicted, from: 0 });
  history.replaceState(null, "", `#cell-${state.label}-${state.predicted}`);
  return show().then(() => $("cell-title").scrollIntoView({ block: "nearest" }), sayProblem);
}

for (const button of document.querySelectorAll("button[data-label]")) button.addEventListener("click", () => open(button));
$("before").addEventListener("click", () => { state.from -= state.each; show().catch(sayProblem); });
$("after").addEventListener("click", () => { state.from += state.each; show().catch(sayProblem); });

const named = /^#cell-(\d+)-(\d+)$/.exec(location.hash);
if (named) {
  const button = document.querySelector(`#matrix button[data-label="${named[1]}"][data-predicted="${named[2]}"]`);
  if (button) open(button);
}
