// A training while it runs: the server tells every change; a reload goes on where it was.
import { $, chart } from "/static/common.js";

const number = $("job").dataset.number;
const source = new EventSource(`/jobs/${number}/events`);

function show(job) {
  $("state").textContent = job.state;
  $("state").className = `state ${job.state}`;
  const running = job.state === "running";
  $("stop").hidden = !running;
  const bar = $("progress");
  if (job.of && running) { bar.max = job.of; bar.value = job.done; } else if (running) bar.removeAttribute("value");
  else { bar.max = 1; bar.value = job.state === "done" ? 1 : 0; }
  $("what").textContent = running && job.of ? `${job.done} of ${job.of} ${job.what}` : "";
  const lines = job.lines.join("\n");
  if ($("lines").textContent !== lines) $("lines").textContent = lines;
  $("curves").hidden = job.epochs.length < 2;
  if (job.epochs.length > 1) chart($("chart"), [
    { values: job.epochs.map((row) => row.loss), kind: "two" },
    { values: job.epochs.map((row) => row.val_loss ?? NaN), kind: "one" },
  ], { label: `Loss of ${job.epochs.length} epochs, ${job.epochs.at(-1).loss} at the end` });
  if (job.state === "done" && job.about.run) {
    $("after").hidden = false;
    $("open").href = `/runs/${encodeURIComponent(job.about.run)}`;
  }
}

source.addEventListener("message", (event) => show(JSON.parse(event.data)));
source.addEventListener("over", () => source.close());
