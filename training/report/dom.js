"use strict";

/** Makes an element: make("p", {class: "soft", onclick: f}, "text", child, ...). */
function make(tag, attributes, ...children) {
  const vector = ["svg", "g", "line", "path", "text", "circle", "rect"].includes(tag);
  const element = vector ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A number in few characters. */
function brief(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(digits - 2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** Different numbers in few characters, but in as many as tell them apart. */
function told(values) {
  let digits = 4;
  while (digits < 12 && new Set(values.map((value) => brief(value, digits))).size < values.length) digits++;
  return values.map((value) => brief(value, digits));
}

let labels = 0;

/** A slider with its label and reading: {row, set(index)}; `show` takes the index and returns the text to read. */
function slider(title, count, start, show) {
  const id = "slider-" + labels++;
  const reading = make("output", { for: id });
  const input = make("input", { type: "range", id, min: 0, max: count - 1, step: 1, value: start });
  const update = () => {
    const text = show(Number(input.value));
    reading.textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  input.addEventListener("input", update);
  const set = (index) => {
    input.value = index;
    update();
  };
  return { row: make("div", { class: "row" }, make("label", { for: id }, title), input, reading), set, input };
}

/** Buttons of which one is chosen: {row, choose(index)}. `children` are the buttons' contents. */
function choice(children, names, choose) {
  const buttons = children.map((child, index) =>
    make("button", { type: "button", "aria-label": names[index], "aria-pressed": "false", onclick: () => pick(index) }, child));
  const pick = (index) => {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
    choose(index);
  };
  return { row: make("div", { class: "row" }, ...buttons), pick };
}
