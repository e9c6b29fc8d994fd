// Pooling: what is made of a window, and which cell won.
import { $, ask, grid, mark, number, sayProblem } from "/static/common.js";

let turn = 0;
async function load() {
  const mine = ++turn;
  try {
    const told = await ask(`/learn/pooling/numbers?${new URLSearchParams(["kind", "size", "stride"].map((name) => [name, $(name).value]))}`);
    if (mine !== turn) return;
    sayProblem(null);
    const image = grid($("image"), told.values, { quiet: true });
    const enter = (r, c) => {
      const at = [], under = [];
      for (let i = 0; i < told.window; i++) for (let j = 0; j < told.window; j++) {
        at.push([r * told.stride + i, c * told.stride + j]);
        under.push(told.values[r * told.stride + i][c * told.stride + j]);
      }
      mark(image, "in", at);
      mark(cells, "here", [[r, c]]);
      mark(image, "won", told.kind === "max" ? [at[under.indexOf(told.pooled[r][c])]] : []);
      $("words").textContent = `${told.kind} (${told.rule}) of ${under.map(number).join(", ")}:`;
      $("sum").textContent = number(told.pooled[r][c]);
    };
    const cells = grid($("pooled"), told.pooled, { enter, label: (r, c) => `pooled row ${r}, column ${c}: ${number(told.pooled[r][c])}` });
    $("text").textContent = told.text.join("\n");
  } catch (error) { sayProblem(error); }
}

for (const name of ["kind", "size", "stride"]) $(name).addEventListener("input", load);
load();
