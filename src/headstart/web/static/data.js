// A folder of photos: how far the look at it is, and copies side by side.
import { $, ask, make, sayProblem } from "/static/common.js";

const scan = $("scan");
if (scan && scan.dataset.state === "running") {
  const source = new EventSource(`/jobs/${scan.dataset.number}/events`);
  source.addEventListener("message", (event) => {
    const job = JSON.parse(event.data);
    $("state").textContent = job.state;
    if (job.of) { $("progress").max = job.of; $("progress").value = job.done; $("what").textContent = `${job.done} of ${job.of} ${job.what}`; }
    $("lines").textContent = job.lines.join("\n");
  });
  source.addEventListener("over", () => { source.close(); location.reload(); });
}

for (const section of document.querySelectorAll(".groups")) {
  const { key, kind } = section.dataset;
  const list = section.querySelector(".pairs"), more = section.querySelector(".more"), first = section.querySelector(".show");
  let from = 0;
  const show = async () => {
    const found = await ask(`/data/${key}/groups?kind=${kind}&from=${from}`);
    for (const group of found.groups) {
      const photos = group.photos.map((photo) => make("li", {},
        photo.number === null ? make("span", { class: "gone" }, "not among the photos")
          : make("img", { src: `/data/${key}/photos/${photo.number}`, alt: photo.path, loading: "lazy" }),
        make("p", {}, make("b", {}, photo.label ?? ""), photo.split ? ` (${photo.split})` : "", make("br"), make("span", { class: "soft" }, photo.path))));
      const rest = group.size > photos.length ? make("p", { class: "soft" }, `and ${group.size - photos.length} more`) : null;
      list.append(make("li", {}, make("ul", { class: "photos" }, ...photos), rest));
    }
    from += found.groups.length;
    first.hidden = true;
    more.hidden = from >= found.total;
  };
  first.addEventListener("click", () => show().catch((error) => { sayProblem(error); first.replaceWith(make("p", { class: "bad" }, error.message)); }));
  more.addEventListener("click", () => show().catch(sayProblem));
}
