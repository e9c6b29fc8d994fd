// Padding, stride and dilation: where the windows stand.
import { $, ask, grid, mark, sayProblem } from "/static/common.js";

const fields = ["size", "kernel", "stride", "padding", "dilation"];

let turn = 0;
async function load() {
  const mine = ++turn;
  try {
    const told = await ask(`/learn/windows/numbers?${new URLSearchParams(fields.map((name) => [name, $(name).value]))}`);
    if (mine !== turn) return;
    sayProblem(null);
    const [before, after] = told.padding, side = told.size + before + after;
    const inside = (at) => at >= before && at < before + told.size;
    const unread = new Set(told.unread);
    const blank = Array.from({ length: side }, () => Array(side).fill(0));
    const image = grid($("image"), blank, {
      quiet: true, plain: true,
      text: (_, r, c) => (inside(r) && inside(c) ? "" : "0"),
      label: (r, c) => `row ${r - before}, column ${c - before}`,
      kind: (r, c) => (!inside(r) || !inside(c) ? "pad" : unread.has(r - before) || unread.has(c - before) ? "unread" : ""),
    });
    for (const [r, row] of image.entries()) for (const [c, cell] of row.entries()) if (cell.classList.contains("unread")) cell.textContent = "×";
    const out = Array.from({ length: told.output }, () => Array(told.output).fill(0));
    const enter = (r, c) => {
      const at = told.windows[r].flatMap((i) => told.windows[c].map((j) => [i + before, j + before]));
      mark(image, "in", at);
      mark(cells, "here", [[r, c]]);
      $("words").textContent = `Number ${r}, ${c} reads rows ${told.windows[r].join(", ")} and columns ${told.windows[c].join(", ")}; what is below 0 or above ${told.size - 1} is padding.`;
    };
    const cells = grid($("output"), out, { plain: true, text: () => "", enter, label: (r, c) => `output row ${r}, column ${c}` });
    $("text").textContent = told.text.join("\n");
    $("words").textContent = `${told.output} x ${told.output} numbers.`;
  } catch (error) { sayProblem(error); }
}

for (const name of fields) $(name).addEventListener("input", load);
load();
