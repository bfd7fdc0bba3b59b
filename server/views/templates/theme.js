"use strict";
// Light or dark: as the system says until the reader says otherwise.
const theme = (() => {
  const listeners = [];
  const button = document.getElementById("theme");
  let name = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const apply = () => {
    document.documentElement.dataset.theme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
    for (const listen of listeners) listen(name);
  };
  button.addEventListener("click", () => {
    name = name === "dark" ? "light" : "dark";
    apply();
  });
  apply();
  return {
    get name() { return name; },
    color(variable) {
      return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
    },
    onChange(listen) { listeners.push(listen); },
  };
})();

const data = JSON.parse(document.getElementById("data").textContent);

// plotly reads some HTML in texts; what comes from documents is shown as it is.
const plain = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Make an element; texts go in as text, never as HTML.
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
