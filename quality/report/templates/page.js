"use strict";
// Sortable tables: each body sorts by itself, so that scores of different networks never mix.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("plot")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      for (const body of table.tBodies) sortRows(body, column, up);
      document.getElementById("announce").textContent =
        "Sorted by " + button.textContent.trim() + (up ? ", ascending" : ", descending");
    });
  });
}

function sortRows(body, column, up) {
  const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
  const key = (row) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const keyed = rows.map((row) => [key(row), row]);
  keyed.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : up ? compare(a, b) : compare(b, a)));
  body.append(...keyed.map(([, row]) => row));
}

// Pictures enlarge in a dialog; arrow keys walk through them.
const viewer = document.getElementById("viewer");
const pictures = [...document.querySelectorAll("button.picture")];
let current = 0;

function show(place) {
  current = (place + pictures.length) % pictures.length;
  const source = pictures[current].querySelector("img");
  const image = document.getElementById("viewer-image");
  image.src = source.src;
  image.alt = source.alt;
  const room = Math.min(innerWidth * 0.9 / source.naturalWidth, (innerHeight - 170) / source.naturalHeight);
  const factor = room >= 1 ? Math.min(Math.floor(room), 12) : room; // whole factors keep pixels square
  image.width = Math.round(source.naturalWidth * factor);
  image.height = Math.round(source.naturalHeight * factor);
  document.getElementById("viewer-caption").textContent = pictures[current].dataset.caption;
  viewer.dataset.kind = pictures[current].dataset.kind;
}

pictures.forEach((button, place) =>
  button.addEventListener("click", () => {
    show(place);
    viewer.showModal();
  })
);
document.getElementById("viewer-previous").addEventListener("click", () => show(current - 1));
document.getElementById("viewer-next").addEventListener("click", () => show(current + 1));
document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(current + 1);
  if (event.key === "ArrowLeft") show(current - 1);
});
viewer.addEventListener("close", () => pictures[current]?.focus());

// The counterfactual image is drawn over the factual one; a slider sets how much of it is visible.
for (const four of document.querySelectorAll("[data-compare]")) {
  const [under, over] = [1, 2].map((place) => four.querySelectorAll("button.picture img")[place].cloneNode());
  const layers = Object.assign(document.createElement("div"), { className: "layers" });
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, value: 50 });
  const label = Object.assign(document.createElement("label"), { className: "slide" });
  const uncover = () => {
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    slider.setAttribute("aria-valuetext", slider.value + " % counterfactual, from the left");
  };
  slider.setAttribute("aria-label", "From factual to counterfactual");
  slider.addEventListener("input", uncover);
  uncover();
  layers.append(under, over);
  label.append("Factual", slider, "Counterfactual");
  const compare = Object.assign(document.createElement("div"), { className: "compare" });
  compare.append(layers, label);
  four.after(compare);
}

const sharp = document.getElementById("sharp");
sharp?.addEventListener("change", () => document.body.classList.toggle("smooth", !sharp.checked));

// Folded sections cannot be opened on paper, so all are opened before printing.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
