/* Not jQuery: the few functions of it that this page uses, under its name, so that the page needs no download. */
(function () {
  "use strict";

  function Selection(elements) { this.elements = elements; }

  Selection.prototype.text = function (value) {
    if (value === undefined) return this.elements.length ? this.elements[0].textContent : "";
    this.elements.forEach(function (element) { element.textContent = value; });
    return this;
  };

  function $(what) {
    if (typeof what === "function") {
      if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", what);
      else what();
      return;
    }
    if (typeof what === "string") return new Selection(Array.prototype.slice.call(document.querySelectorAll(what)));
    return new Selection([what]);
  }

  $.getJSON = function (url, done, failed) {
    fetch(url, { cache: "no-store" }).then(function (response) {
      return response.json().then(function (data) {
        if (!response.ok) throw new Error(data.error || response.status);
        return data;
      });
    }).then(done).catch(function (error) { if (failed) failed(error.message || String(error)); });
  };

  window.$ = window.jQuery = $;
})();
