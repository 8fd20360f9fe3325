// Opens the cell that the address names, so that a link to it shows it.
(function () {
  "use strict";

  function open() {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (named && named.tagName === "DETAILS") {
      named.open = true;
      named.scrollIntoView();
    }
  }

  window.addEventListener("hashchange", open);
  open();
})();
