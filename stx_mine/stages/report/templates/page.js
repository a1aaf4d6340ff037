"use strict";
const search = document.getElementById("search"), kind = document.getElementById("kind");
const found = document.getElementById("found");
const examples = Array.from(document.querySelectorAll(".example"));
const texts = examples.map((one) => one.textContent.toLowerCase());
function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  examples.forEach((one, place) => {
    const fits = (!kind.value || one.dataset.kind === kind.value)
      && words.every((word) => texts[place].includes(word));
    one.hidden = !fits;
    shown += fits;
  });
  found.textContent = `${shown} of ${examples.length} queries`;
}
search.addEventListener("input", filter);
kind.addEventListener("change", filter);
document.getElementById("controls").hidden = false;
filter();
