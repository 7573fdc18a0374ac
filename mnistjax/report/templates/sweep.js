"use strict";
const collator = new Intl.Collator(undefined, { numeric: true });
const membersOf = (element) => element.dataset.m.split(" ");
const charts = Array.from(document.querySelectorAll(".chart"), (chart) => ({
  chart,
  lines: Array.from(chart.querySelectorAll(".line")),
  top: chart.querySelector(".top"),
}));
const rows = Array.from(document.querySelectorAll("tr[data-m], li[data-m]"));

// The lines of these networks are drawn again above all others, which step back.
const light = (members) => {
  for (const { chart, lines, top } of charts) {
    const chosen = lines.filter((line) => members.includes(line.dataset.m));
    top.replaceChildren(...chosen.map((line) => line.cloneNode(true)));
    chart.classList.toggle("dim", members.length > 0);
  }
  for (const row of rows) {
    row.classList.toggle("lit", membersOf(row).some((member) => members.includes(member)));
  }
};
const lightUnder = (event) => {
  const found = event.target.closest("[data-m]");
  light(found ? membersOf(found) : []);
};
document.addEventListener("mouseover", lightUnder);
document.addEventListener("focusin", lightUnder);
document.addEventListener("focusout", () => light([]));

// A number comes before a text, and what is missing comes last in either direction.
const compare = (one, other) => {
  if (typeof one === "number" && typeof other === "number") {
    return one - other;
  }
  if (typeof one !== typeof other) {
    return typeof one === "number" ? -1 : 1;
  }
  return collator.compare(one, other);
};
const sort = (table, column, sign) => {
  const sorted = Array.from(table.tBodies[0].rows, (row) => {
    const cell = row.cells[column];
    const value = "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
    return { row, value };
  });
  sorted.sort((one, other) => {
    const missing = (one.value === "") - (other.value === "");
    return missing || sign * compare(one.value, other.value);
  });
  table.tBodies[0].append(...sorted.map(({ row }) => row));
};
for (const table of document.querySelectorAll(".sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "press";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sort(table, column, falling ? -1 : 1);
    });
  });
  for (const row of table.tBodies[0].rows) {
    row.tabIndex = 0;
  }
}
document.getElementById("hint").hidden = false;
