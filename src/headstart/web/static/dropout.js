// Dropout: which units stay, and what comes out.
import { $, ask, make, number, sayProblem } from "/static/common.js";

let seed = 0;
let turn = 0;
async function load() {
  const mine = ++turn;
  $("value").textContent = $("rate").value;
  try {
    const told = await ask(`/learn/dropout/numbers?rate=${$("rate").value}&kind=${$("kind").value}&seed=${seed}`);
    if (mine !== turn) return;
    const unit = (before, after, kept) => make("li", { class: kept ? "" : "off" }, number(Number(after.toPrecision(3))), make("small", {}, `was ${number(before)}`));
    $("training").replaceChildren(...told.values.map((value, at) => unit(value, told.training[at], told.keep[at])));
    $("use").replaceChildren(...told.values.map((value, at) => unit(value, told.use[at], true)));
    const now = told.training.reduce((sum, value) => sum + value, 0), use = told.use.reduce((sum, value) => sum + value, 0);
    $("words").textContent = `The next layer sees a sum of ${number(Number(now.toPrecision(4)))} in this draw, ${number(Number(told.mean_sum.toPrecision(4)))} in the mean of 20,000 draws, and ${number(Number(use.toPrecision(4)))} in use: the scale fits. All units together are ${number(told.sum)}.`;
  } catch (error) { sayProblem(error); }
}
for (const name of ["rate", "kind"]) $(name).addEventListener("input", load);
$("again").addEventListener("click", () => { seed += 1; load(); });
load();
