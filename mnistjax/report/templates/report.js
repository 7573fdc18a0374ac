"use strict";
const gallery = document.getElementById("gallery");
if (gallery) {
  const filter = document.getElementById("filter");
  const truth = document.getElementById("filter-true");
  const predicted = document.getElementById("filter-predicted");
  const count = document.getElementById("filter-count");
  const items = Array.from(gallery.children);

  const show = () => {
    let shown = 0;
    for (const item of items) {
      const fits =
        (truth.value === "" || truth.value === item.dataset.t) &&
        (predicted.value === "" || predicted.value === item.dataset.p);
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${items.length} shown`;
  };
  const choose = (t, p) => {
    truth.value = t;
    predicted.value = p;
    show();
  };

  truth.addEventListener("change", show);
  predicted.addEventListener("change", show);
  document.getElementById("filter-all").addEventListener("click", () => choose("", ""));
  for (const cell of document.querySelectorAll("button[data-t]")) {
    cell.addEventListener("click", () => {
      choose(cell.dataset.t, cell.dataset.p);
      document.getElementById("mistakes").scrollIntoView();
      truth.focus({ preventScroll: true });
    });
  }
  filter.hidden = false;
  show(); // A browser may have kept the choice of before.
}
