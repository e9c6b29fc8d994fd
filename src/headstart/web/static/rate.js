// The learning rate in the simplest valley: x*x/2.
import { $, ask, chart, draw, number, sayProblem } from "/static/common.js";

const WORDS = {
  good: "Each step comes nearer to the bottom.",
  bouncing: "Each step lands on the other side. It still comes nearer, but not by the shortest way; at exactly 2 it never does.",
  diverged: "Each step lands farther up on the other side: the loss grows without end.",
};

function valley(places) {
  const wide = 480, high = 240, reach = Math.max(1.25, ...places.slice(0, 12).map((at) => Math.min(Math.abs(at), 4)));
  const x = (at) => wide / 2 + ((wide / 2 - 12) * at) / reach, y = (at) => high - 14 - ((high - 30) * at * at) / (reach * reach);
  const curve = Array.from({ length: 61 }, (_, n) => reach * (n / 30 - 1)).map((at) => `${x(at).toFixed(1)} ${y(at).toFixed(1)}`);
  const seen = places.filter((at) => Math.abs(at) <= reach).slice(0, 14);
  $("valley").replaceChildren(draw("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `Steps at ${seen.slice(0, 6).map(number).join(", ")}` },
    draw("path", { class: "valley", d: `M${curve.join("L")}` }),
    draw("path", { class: "one", d: `M${seen.map((at) => `${x(at).toFixed(1)} ${y(at).toFixed(1)}`).join("L")}` }),
    ...seen.map((at) => draw("circle", { class: "dot", cx: x(at), cy: y(at), r: 4 }))));
}

let asked = 0;
async function load() {
  const mine = ++asked;
  $("value").textContent = $("rate").value;
  try {
    const told = await ask(`/learn/rate/numbers?rate=${$("rate").value}`);
    if (mine !== asked) return;
    const slow = told.verdict === "good" && told.rate < 0.1;
    $("verdict").textContent = slow ? "too low" : told.verdict;
    $("words").textContent = `Each step multiplies x by ${number(told.factor)}. ${slow ? "It comes nearer, but it would take hundreds of steps." : WORDS[told.verdict]}`;
    valley(told.places);
    chart($("losses"), [{ values: told.losses, kind: "one" }], { log: true, label: `Loss from ${number(told.losses[0])} to ${number(told.losses.at(-1))}` });
  } catch (error) { sayProblem(error); }
}
$("rate").addEventListener("input", load);
load();
