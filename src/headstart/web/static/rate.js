// The learning rate in the simplest valley: x*x/2.
import { $, ask, chart, draw, make, number, sayProblem } from "/static/common.js";

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

// A net with several rates: what the job says while it runs, and its curves when it is done.
const REACH = 3; // neighbours on either side that a curve is averaged over
const HIGHEST = 2.5; // times the loss of guessing: what is above is not drawn

function smooth(values) {
  return values.map((_, at) => {
    const near = values.slice(Math.max(0, at - REACH), at + REACH + 1);
    return near.some((value) => value === null) ? NaN : near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

function showTrials(found, chosen) {
  const longest = Math.max(...found.sweep.map((trial) => trial.losses.length));
  const curve = (trial) => smooth(trial.losses).map((value) => Math.min(value, HIGHEST * found.chance));
  const lines = found.sweep.map((trial, at) => ({ values: curve(trial), kind: at === chosen ? "one" : "other" }));
  const picked = lines.splice(chosen, 1);
  chart($("trials"), [{ values: Array(longest).fill(found.chance), kind: "two" }, ...lines, ...picked],
    { label: `Loss with the rate ${found.sweep[chosen].rate}: ${found.sweep[chosen].verdict}. ${found.sweep[chosen].why}` });
  const rows = found.sweep.map((trial, at) => {
    const button = make("button", { type: "button", "aria-pressed": String(at === chosen) }, number(trial.rate));
    button.addEventListener("click", () => { showTrials(found, at); $("verdicts").querySelectorAll("button")[at].focus(); });
    return make("tr", {}, make("th", { scope: "row" }, button), make("td", {}, make("b", {}, trial.verdict)), make("td", {}, trial.why));
  });
  $("verdicts").replaceChildren(
    make("table", { class: "rates" }, make("thead", {}, make("tr", {}, ...["Rate", "Verdict", "Why"].map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, ...rows)),
    make("p", {}, "Suggested: ", make("b", {}, number(found.suggestion)), `. Guessing gives a loss of ${number(found.chance)}.`));
}

async function showResult(job) {
  const found = await ask(`/jobs/${job}/result`);
  if (!found) { $("lines").hidden = false; return; }
  $("sweep").hidden = false;
  const suggested = found.sweep.findIndex((trial) => trial.rate === found.suggestion);
  showTrials(found, Math.max(suggested, 0));
}

if ($("job")) {
  const job = $("job").dataset.number, source = new EventSource(`/jobs/${job}/events`);
  source.addEventListener("message", (event) => {
    const told = JSON.parse(event.data), running = told.state === "running";
    $("state").textContent = told.state;
    $("state").className = `state ${told.state}`;
    $("stop").hidden = !running;
    $("progress").hidden = !running;
    if (told.of) { $("progress").max = told.of; $("progress").value = told.done; }
    $("what").textContent = running && told.of ? `${told.done} of ${told.of} ${told.what}` : "";
    $("lines").textContent = told.lines.join("\n");
  });
  source.addEventListener("over", () => { source.close(); showResult(job).catch(sayProblem); });
}
