// A convolution by hand: the numbers come from the server; here they are only shown, multiplied and added.
import { $, ask, grid, mark, number, sayProblem, send, takePhotos } from "/static/common.js";

let told = null, cells = {}, photo = null, turn = 0;

function enter(r, c) {
  const { picture, kernel, response } = told;
  const products = [], at = [];
  let sum = 0;
  kernel.forEach((row, i) => row.forEach((weight, j) => {
    const pixel = picture[r + i][c + j];
    at.push([r + i, c + j]);
    sum += pixel * weight;
    if (pixel * weight !== 0) products.push(`${number(pixel)}×${weight < 0 ? `(${number(weight)})` : number(weight)}`);
  }));
  mark(cells.image, "in", at);
  mark(cells.response, "here", [[r, c]]);
  mark(cells.relu, "here", [[r, c]]);
  if (cells.pooled) mark(cells.pooled, "here", [[Math.floor(r / 2), Math.floor(c / 2)]]);
  $("words").textContent = `Row ${r}, column ${c}: ${products.length} product${products.length === 1 ? "" : "s"} that are not 0. After ReLU: ${number(told.relu[r][c])}.`;
  $("products").textContent = products.length ? `${products.join(" + ")} =` : "nothing of the picture lies under the filter's numbers:";
  $("sum").textContent = number(sum);
  $("sum").dataset.sum = String(sum);
  $("sum").dataset.response = String(response[r][c]);
}

function show(found) {
  told = found;
  sayProblem(null);
  cells = {
    image: grid($("image"), found.picture, { grey: true, quiet: true }),
    filter: grid($("filter"), found.kernel, { quiet: true }),
    response: grid($("response"), found.response, { enter, label: (r, c) => `response, row ${r}, column ${c}: ${number(found.response[r][c])}` }),
    relu: grid($("relu"), found.relu, { quiet: true, enter }),
    pooled: null,
  };
  $("pooled-part").hidden = found.pooled === null;
  if (found.pooled) {
    cells.pooled = grid($("pooled"), found.pooled, { quiet: true });
    found.pooled.forEach((row, r) => row.forEach((best, c) => {
      for (const [i, j] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
        if (best > 0 && found.relu[2 * r + i][2 * c + j] === best) { cells.relu[2 * r + i][2 * c + j].classList.add("won"); return; }
      }
    }));
  }
  $("sum").textContent = "";
  $("products").textContent = "";
  $("words").textContent = "Point at a number of the response, or move there with the arrow keys.";
  document.body.dataset.ready = "1";
}

const kernel = () => $("kernel").value || $("own").value;

async function load() {
  const mine = ++turn;
  $("own-field").hidden = $("kernel").value !== "";
  try {
    const found = await (photo ? send(`/learn/convolution/photo?kernel=${encodeURIComponent(kernel())}`, photo)
      : ask(`/learn/convolution/numbers?picture=${encodeURIComponent($("picture").value)}&kernel=${encodeURIComponent(kernel())}`));
    if (mine === turn) show(found);
  } catch (error) { if (mine === turn) sayProblem(error); }
}

$("picture").addEventListener("change", () => { photo = null; load(); });
$("kernel").addEventListener("change", load);
$("own").addEventListener("change", load);
takePhotos($("image"), $("file"), (file) => { photo = file; load(); });
load();
