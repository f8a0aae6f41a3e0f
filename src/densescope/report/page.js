"use strict";

// The plotting library lies in the page compressed; it is unpacked here, once.
async function unpack(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const siblings = (place) =>
  [...place.closest(".panels").querySelectorAll("[data-figure]")].filter((it) => it !== place);

// Pointing at a checkpoint in one figure points at it in the figures beside it.
function link(place, others) {
  let own = false;
  place.addEventListener("pointerenter", () => { own = true; });
  place.addEventListener("pointerleave", () => {
    own = false;
    others.forEach((other) => Plotly.Fx.unhover(other));
  });
  place.on("plotly_hover", (event) => {
    if (own) others.forEach((other) => Plotly.Fx.hover(other, { xval: event.points[0].x }));
  });
}

async function draw() {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll("[data-figure]")];
  if (places.length === 0) return;
  const library = document.createElement("script");
  library.textContent = await unpack("library");
  document.head.append(library);
  for (const place of places) {
    const figure = figures[place.dataset.figure];
    const config = { displayModeBar: false, responsive: true, scrollZoom: false };
    await Plotly.newPlot(place, figure.data, figure.layout, config);
  }
  places.forEach((place) => link(place, siblings(place)));
  const fit = () => places.forEach((place) => Plotly.Plots.resize(place));
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
}

// A table that is wider than its place says so, and shows at which side it goes on.
function hint(box) {
  const note = document.createElement("p");
  note.className = "note more";
  note.textContent = "More columns to the right: scroll the table sideways. →";
  box.before(note);
  const look = () => {
    const hidden = box.scrollWidth - box.clientWidth;
    note.hidden = hidden <= 1;
    box.classList.toggle("cut", hidden - box.scrollLeft > 1);
  };
  box.addEventListener("scroll", look);
  new ResizeObserver(look).observe(box);
}

function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== (head.dataset.first || "ascending")
        ? head.dataset.first !== "descending"
        : head.dataset.first === "descending";
      const key = (row) => row.cells[column]?.dataset.sort ?? "";
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return x === "" || y === "" || up ? compare(x, y) : compare(y, x);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

// One map of layers is shown at a time; arrow keys go from cell to cell.
function pickMap(picker) {
  const maps = [...document.querySelectorAll(".layer-map")];
  const select = picker.querySelector("select");
  const show = () => maps.forEach((map) => { map.hidden = map.dataset.map !== select.value; });
  picker.hidden = false;
  select.addEventListener("change", show);
  show();
}

function walk(map) {
  const table = map.querySelector(".heat");
  const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
  const heads = [...table.tHead.rows[0].cells].slice(1);
  const readout = map.querySelector(".readout");
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const tell = (cell) => {
    const [row, column] = [cell.parentElement, cell.cellIndex - 1];
    const place = `${table.dataset.unit} ${heads[column].textContent} (${heads[column].title})`;
    readout.textContent = `${place}, layer ${row.cells[0].textContent}: ${cell.title}`;
  };
  let active = rows[0][0];
  active.tabIndex = 0;
  rows.forEach((cells, y) => cells.forEach((cell, x) => {
    if (cell !== active) cell.tabIndex = -1;
    cell.addEventListener("pointerenter", () => tell(cell));
    cell.addEventListener("focus", () => {
      active.tabIndex = -1;
      active = cell;
      active.tabIndex = 0;
      tell(cell);
    });
    cell.addEventListener("keydown", (event) => {
      const move = moves[event.key];
      const next = move && rows[y + move[0]]?.[x + move[1]];
      if (!move) return;
      event.preventDefault();
      if (next) next.focus();
    });
  }));
}

document.querySelectorAll(".picker").forEach(pickMap);
document.querySelectorAll(".layer-map").forEach(walk);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".wide").forEach(hint);
draw().catch((error) => {
  document.documentElement.classList.add("undrawn");
  console.warn(`The figures could not be drawn: ${error}`);
}).finally(() => document.documentElement.classList.add("ready"));
