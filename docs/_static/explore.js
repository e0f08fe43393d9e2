// LEAF, its gradient, and the functions it starts from, drawn as its parameters are moved.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const STEP_SLOPE = 2 ** 16;

const FORMS = {
  relu: {
    title: "ReLU", parameters: [1, 0, STEP_SLOPE, 0],
    y: (u) => Math.max(0, u), gradient: (u) => (u > 0 ? 1 : 0),
  },
  silu: {
    title: "SiLU", parameters: [1, 0, 1, 0],
    y: (u) => u * sigmoid(u), gradient: (u) => sigmoid(u) * (1 + u * (1 - sigmoid(u))),
  },
  tanh: {
    title: "Tanh", parameters: [0, 2, 2, -1],
    y: Math.tanh, gradient: (u) => 1 - Math.tanh(u) ** 2,
  },
  sigmoid: {
    title: "Sigmoid", parameters: [0, 1, 1, 0],
    y: sigmoid, gradient: (u) => sigmoid(u) * (1 - sigmoid(u)),
  },
};

const leaf = ([p1, p2, p3, p4]) => ({
  y: (u) => (p1 * u + p2) * sigmoid(p3 * u) + p4,
  gradient: (u) => {
    const s = sigmoid(p3 * u);
    return p1 * s + (p1 * u + p2) * s * (1 - s) * p3;
  },
});

// p3 goes from what a line needs to what a step needs: its slider is logarithmic on both sides of 0.
const onSlider = {
  p3: { place: (value) => Math.sign(value) * Math.log2(1 + Math.abs(value)),
        value: (place) => Math.sign(place) * (2 ** Math.abs(place) - 1) },
};
const linear = { place: (value) => value, value: (place) => place };

// Where a curve is evaluated: evenly, and closely around 0, where a steep gate opens.
function inputs(slope) {
  const even = Array.from({ length: 481 }, (_, i) => -6 + i / 40);
  const close = Array.from({ length: 121 }, (_, i) => (-6 + i / 10) / Math.max(1, Math.abs(slope)));
  return [...even, ...close].sort((a, b) => a - b);
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const WIDTH = 360, HEIGHT = 260, MARGIN = { left: 28, right: 8, top: 8, bottom: 22 };

function svg(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return parent.appendChild(element);
}

class Plot {
  constructor(id, low, high) {
    this.x = (u) => MARGIN.left + ((u + 6) / 12) * (WIDTH - MARGIN.left - MARGIN.right);
    this.y = (y) => MARGIN.top + ((high - y) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const root = document.getElementById(id);
    const clip = svg(svg(root, "defs", {}), "clipPath", { id: `${id}-area` });
    const [left, top] = [this.x(-6), this.y(high)];
    svg(clip, "rect", { x: left, y: top, width: this.x(6) - left, height: this.y(low) - top });
    for (let u = -6; u <= 6; u += 2) {
      svg(root, "line", { class: u ? "grid" : "axis", x1: this.x(u), x2: this.x(u), y1: this.y(low), y2: top });
      svg(root, "text", { x: this.x(u), y: HEIGHT - 6, "text-anchor": "middle" }, String(u).replace("-", "−"));
    }
    for (let y = Math.ceil(low); y <= high; y += 1) {
      svg(root, "line", { class: y ? "grid" : "axis", x1: left, x2: this.x(6), y1: this.y(y), y2: this.y(y) });
      svg(root, "text", { x: left - 6, y: this.y(y) + 4, "text-anchor": "end" }, String(y).replace("-", "−"));
    }
    const curves = svg(root, "g", { "clip-path": `url(#${id}-area)` });
    this.paths = ["leaf", "base"].map((name) => svg(curves, "path", { class: name }));
  }

  draw(us, curves) {
    curves.forEach((curve, i) => {
      const points = us.map((u) => `${this.x(u).toFixed(2)},${Math.max(-1e4, Math.min(1e4, this.y(curve(u)))).toFixed(2)}`);
      this.paths[i].setAttribute("d", `M${points.join("L")}`);
    });
  }
}

// --- the page --------------------------------------------------------------------------------------------------------

const NAMES = ["p1", "p2", "p3", "p4"];
const buttons = [...document.querySelectorAll("#explore [data-form]")];
const plots = { y: new Plot("function", -3, 5), gradient: new Plot("gradient", -1.5, 2.5) };
let form, parameters;

function written(value) {
  const digits = Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

function draw() {
  const base = FORMS[form], learned = leaf(parameters), us = inputs(parameters[2]);
  for (const [what, plot] of Object.entries(plots)) plot.draw(us, [learned[what], base[what]]);
  const largest = us.reduce((most, u) => Math.max(most, Math.abs(learned.gradient(u))), 0);
  document.getElementById("largest").textContent = written(largest);
  NAMES.forEach((name, i) => {
    document.querySelector(`output[for=${name}]`).textContent = written(parameters[i]);
    document.getElementById(name).setAttribute("aria-valuetext", written(parameters[i]));
  });
}

function start(name) {
  form = name;
  parameters = [...FORMS[name].parameters];
  NAMES.forEach((p, i) => { document.getElementById(p).value = (onSlider[p] ?? linear).place(parameters[i]); });
  document.getElementById("base-name").textContent = FORMS[name].title;
  for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.form === name);
  draw();
}

for (const button of buttons) button.addEventListener("click", () => start(button.dataset.form));
NAMES.forEach((name, i) => {
  document.getElementById(name).addEventListener("input", (event) => {
    parameters[i] = (onSlider[name] ?? linear).value(Number(event.target.value));
    draw();
  });
});
start("silu");
