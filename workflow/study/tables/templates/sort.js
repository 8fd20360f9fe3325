// Sorts a table by the column whose heading is pressed: numbers by value, words by the alphabet, holes always last.
(function () {
  "use strict";

  function number(text) {
    const found = /^[<>≈+]?\s*([+\-−]?[\d,]*\.?\d+(?:e[+\-−]?\d+)?)/i.exec(text);
    return found ? Number(found[1].replace(/,/g, "").replace(/−/g, "-")) : NaN;
  }

  function compare(one, other) {
    const left = number(one), right = number(other);
    if (!Number.isNaN(left) && !Number.isNaN(right)) return left - right;
    if (Number.isNaN(left) !== Number.isNaN(right)) return Number.isNaN(left) ? 1 : -1;
    return one.localeCompare(other);
  }

  function sort(heading) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const place = heading.cellIndex, body = heading.closest("table").tBodies[0];
    const entry = (row) => row.cells[place].textContent.trim();
    const hole = (text) => text === "" || text === "–";
    const rows = Array.from(body.rows);
    rows.sort(function (one, other) {
      const left = entry(one), right = entry(other);
      if (hole(left) || hole(right)) return hole(left) - hole(right);
      return descending ? compare(right, left) : compare(left, right);
    });
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows);
  }

  document.addEventListener("click", function (event) {
    const heading = event.target.closest("th");
    if (heading && heading.querySelector("button")) sort(heading);
  });
})();
