"use strict";

const recording = JSON.parse(document.getElementById("recording").textContent);
const { steps, locations, window: shown } = recording;
const byId = (id) => document.getElementById(id);
const LABEL_PIXELS = 16; // the least from one label to the next
const FREE = 0.3; // how strongly outputs are drawn that the task does not ask for
const KEYFRAME_STEPS = 16; // the memory is kept at each so many steps, and computed between them

/** A matrix from base64 of little-endian float32: rows of `width` values. */
function matrix(packed) {
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed.values), (letter) => letter.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  const { width } = packed;
  return { width, rows: values.length / width, values, row: (index) => values.subarray(index * width, (index + 1) * width) };
}

function element(parent, kind, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(kind), properties));
}

const inputs = matrix(recording.inputs);
const outputs = matrix(recording.outputs);
const target = matrix(recording.target);
const heads = recording.heads.map((head) => ({
  ...head, weighting: matrix(head.weighting), erase: matrix(head.erase), add: matrix(head.add),
}));
const memoryBefore = matrix(recording.memory);

// The memory over time

const keyframes = memoryBefore ? [memoryBefore.values] : [];

/** Equations 3 and 4: all write heads erase, then all add. */
function written(memory, step) {
  const width = memoryBefore.width;
  const next = new Float32Array(memory.length);
  const writers = heads.filter((head) => head.erase);
  for (let location = 0; location < locations; location++) {
    for (let place = 0; place < width; place++) {
      let kept = memory[location * width + place];
      let added = 0;
      for (const head of writers) {
        const weight = head.weighting.values[step * locations + location];
        kept *= 1 - weight * head.erase.values[step * width + place];
        added += weight * head.add.values[step * width + place];
      }
      next[location * width + place] = kept + added;
    }
  }
  return next;
}

/** The memory [locations, width] after a step. */
function memoryAfter(step) {
  const wanted = step + 1;
  let from = Math.min(Math.floor(wanted / KEYFRAME_STEPS), keyframes.length - 1);
  let memory = keyframes[from];
  for (let done = from * KEYFRAME_STEPS; done < wanted; done++) {
    memory = written(memory, done);
    if ((done + 1) % KEYFRAME_STEPS === 0) keyframes[(done + 1) / KEYFRAME_STEPS] = memory;
  }
  return memory;
}

// Colours

let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["surface", "read", "write", "plus", "minus", "ink-cell"]) {
    const hex = style.getPropertyValue(`--${name}`).trim();
    colours[name] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
}

/** Paint values [rows][columns], given by a function, a pixel each; 0 has the surface's colour. */
function paint(canvas, columns, rows, value, largest, plus, minus = "minus") {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const amount = value(row, column) / largest;
      const share = Math.min(1, Math.abs(amount)) ** 0.8;
      const end = colours[amount < 0 ? minus : plus];
      const at = 4 * (row * columns + column);
      for (let part = 0; part < 3; part++) {
        image.data[at + part] = colours.surface[part] + share * (end[part] - colours.surface[part]);
      }
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

const largestOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);

// The timeline

const plots = [];

function addPlot(title, kind, rows, value, largest, colour, names, strength = () => 1) {
  const figure = element(byId("timeline"), "figure", { className: plots.length ? "" : "marked" });
  element(figure, "figcaption", { textContent: title, className: kind });
  const labels = element(figure, "div", { className: "rows" });
  const plot = element(figure, "div", { className: "plot" });
  const canvas = element(plot, "canvas");
  const height = Math.max(24, Math.min(rows * 9, heads.length > 2 ? 110 : 230));
  canvas.style.height = `${height}px`;
  const cursor = element(plot, "div", { className: "cursor" });
  cursor.style.width = `${100 / steps}%`;
  for (const [step, word] of Object.entries(recording.marks)) {
    const mark = element(plot, "div", { className: "mark" });
    mark.style.left = `${(100 * (Number(step) + 0.5)) / steps}%`;
    if (!plots.length) element(mark, "b", { textContent: word });
  }
  label(labels, names, height);
  plots.push({ canvas, cursor, draw: () => paint(canvas, steps, rows, (row, step) => strength(step) * value(row, step), largest, colour) });
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const clamp = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
    return [clamp((event.clientX - box.left) / box.width, steps), clamp((event.clientY - box.top) / box.height, rows)];
  };
  plot.addEventListener("pointerdown", (event) => { plot.setPointerCapture(event.pointerId); go(place(event)[0]); });
  plot.addEventListener("pointermove", (event) => {
    const [step, row] = place(event);
    if (event.buttons) go(step);
    point(`${title}, step ${step}, ${names.word} ${names.of(row)}: ${value(row, step).toFixed(3)}`);
  });
}

/** As many labels beside rows as so many pixels have room for. */
function label(parent, names, height) {
  const most = Math.max(1, height / LABEL_PIXELS);
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => names.count / size <= most) || names.count;
  let last = -Infinity;
  for (let row = 0; row < names.count; row++) {
    if (names.of(row) % every || row - last < 0.7 * every) continue;
    last = row;
    const text = element(parent, "span", { textContent: names.of(row) });
    text.style.top = `${(100 * (row + 0.5)) / names.count}%`;
  }
}

function point(text) { byId("pointed").textContent = text; }

const isFree = (step) => Boolean(recording.counts) && !recording.counts[step];
const channels = (width) => ({ count: width, of: (row) => row, word: "channel" });
const places = { count: shown.length, of: (row) => shown[row], word: "location" };

addPlot("inputs", "", inputs.width, (row, step) => inputs.row(step)[row], largestOf(inputs.values), "ink-cell", channels(inputs.width));
if (target) {
  addPlot("target", "", target.width, (row, step) => target.row(step)[row], 1, "ink-cell", channels(target.width));
}
addPlot("outputs", "", outputs.width, (row, step) => outputs.row(step)[row], largestOf(outputs.values), "ink-cell", channels(outputs.width), (step) => (isFree(step) ? FREE : 1));
for (const head of heads) {
  addPlot(`${head.name}: weighting`, head.kind, shown.length, (row, step) => head.weighting.row(step)[shown[row]], 1, head.kind, places);
}

// The moment

let now = 0;
let spots = [];
let besides = [];
let memoryLargest = 1;

if (memoryBefore) {
  byId("memory").hidden = false;
  const height = Math.max(80, Math.min(shown.length * 14, 400));
  const canvas = element(byId("cells"), "canvas", { id: "map" });
  canvas.style.height = `${height}px`;
  byId("beside").style.height = `${height}px`;
  label(byId("labels"), places, height);
  besides = heads.map((head) => {
    const column = element(byId("beside"), "div", { title: head.name });
    element(column, "b", { className: head.kind, textContent: head.short });
    return element(column, "canvas");
  });
  spots = heads.map((head) => element(byId("cells"), "div", { className: `spot ${head.kind}` }));
  memoryLargest = largestOf(memoryBefore.values);
  for (const head of heads) if (head.add) memoryLargest = Math.max(memoryLargest, largestOf(head.add.values));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.min(shown.length - 1, Math.floor(((event.clientY - box.top) / box.height) * shown.length));
    const place = Math.min(memoryBefore.width - 1, Math.floor(((event.clientX - box.left) / box.width) * memoryBefore.width));
    if (row >= 0 && place >= 0) {
      point(`memory after step ${now}, location ${shown[row]}, element ${place}: ${current[shown[row] * memoryBefore.width + place].toFixed(3)}`);
    }
  });
}
const codes = recording.codes.map(({ title, lines, current: executed }) => {
  const code = element(byId("codes"), "div", { className: "code" });
  element(code, "h2", { textContent: title });
  const list = element(code, "ol");
  const items = lines.map((line) => {
    const text = line.trimStart();
    const item = element(list, "li", { textContent: text });
    item.style.paddingLeft = `${line.length - text.length + 3}ch`;
    return item;
  });
  return { items, executed };
});
const headRows = heads.map((head) => {
  const row = element(byId("heads").tBodies[0], "tr");
  element(row, "th", { scope: "row", className: head.kind, textContent: head.name });
  return element(row, "td");
});
byId("heads").hidden = !heads.length;

const short = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2));

function vector(name, values, { bits = false, wrong = null, free = false } = {}) {
  element(byId("vectors"), "span", { className: "name", textContent: name });
  const cells = element(byId("vectors"), "div", { className: "vector" });
  values.forEach((value, channel) => {
    const cell = element(cells, "span", { textContent: bits ? Number(value > 0.5) : short(value), title: `channel ${channel}: ${value.toFixed(4)}` });
    cell.classList.toggle("set", value > 0.5);
    cell.classList.toggle("free", free);
    cell.classList.toggle("wrong", Boolean(wrong) && wrong(channel));
  });
}

let current = null;

function show() {
  const word = recording.marks[now];
  byId("time").value = now;
  byId("time").setAttribute("aria-valuetext", `step ${now}${word ? `, ${word}` : ""}`);
  byId("now").textContent = `step ${now} of ${steps - 1}${word ? ` · ${word}` : ""}`;
  for (const { cursor } of plots) cursor.style.left = `${(100 * now) / steps}%`;

  byId("vectors").replaceChildren();
  const counts = Boolean(target) && !isFree(now);
  vector("input", inputs.row(now));
  vector("output", outputs.row(now), {
    bits: true,
    free: isFree(now),
    wrong: counts ? (channel) => outputs.row(now)[channel] > 0.5 !== target.row(now)[channel] > 0.5 : null,
  });
  if (counts) vector("target", target.row(now), { bits: true });
  headRows.forEach((cell, index) => { cell.textContent = recording.words[now][index]; });

  if (memoryBefore) {
    current = memoryAfter(now);
    paint(byId("map"), memoryBefore.width, shown.length, (row, place) => current[shown[row] * memoryBefore.width + place], memoryLargest, "plus");
    heads.forEach((head, index) => {
      const weighting = head.weighting.row(now);
      paint(besides[index], 1, shown.length, (row) => weighting[shown[row]], 1, head.kind);
      const most = weighting.indexOf(Math.max(...weighting));
      const row = shown.indexOf(most);
      spots[index].hidden = row < 0;
      spots[index].style.top = `calc(${(100 * row) / shown.length}% - 1px)`;
      spots[index].style.height = `calc(${100 / shown.length}% + 2px)`;
      spots[index].style.opacity = Math.max(0.15, weighting[most]);
    });
  }
  for (const { items, executed } of codes) {
    const active = executed[now] || [];
    items.forEach((line, index) => {
      if (active.includes(index)) line.setAttribute("aria-current", "step");
      else line.removeAttribute("aria-current");
    });
  }
  if (!timer) byId("told").textContent = `Step ${now}. ${heads.map((head, index) => `${head.name}: ${recording.words[now][index]}`).join(". ")}`;
}

// Moving along time

let timer = null;

function go(step) {
  now = Math.max(0, Math.min(steps - 1, step));
  history.replaceState(null, "", `#step=${now}`);
  show();
}

function pause() {
  clearInterval(timer);
  timer = null;
  byId("play").textContent = "play";
}

function play() {
  if (timer) { pause(); return; }
  if (now === steps - 1) go(0);
  timer = setInterval(() => { if (now === steps - 1) pause(); else go(now + 1); }, 250);
  byId("play").textContent = "pause";
}

const moves = {
  first: () => go(0), back: () => go(now - 1), on: () => go(now + 1), last: () => go(steps - 1),
  tenBack: () => go(now - 10), tenOn: () => go(now + 10),
};
const keys = {
  ArrowLeft: moves.back, ArrowRight: moves.on, Home: moves.first, End: moves.last,
  PageUp: moves.tenBack, PageDown: moves.tenOn, " ": play, t: switchTheme,
};

document.addEventListener("keydown", (event) => {
  const move = keys[event.key];
  if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && event.target.closest("button")) return;
  event.preventDefault();
  if (move !== play && move !== switchTheme) pause();
  move();
});
for (const button of document.querySelectorAll("[data-go]")) {
  button.addEventListener("click", () => { pause(); moves[button.dataset.go](); });
}
byId("play").addEventListener("click", play);
byId("time").max = steps - 1;
byId("time").addEventListener("input", () => { pause(); go(Number(byId("time").value)); });

// Light and dark

const dark = matchMedia("(prefers-color-scheme: dark)");

function redraw() {
  readColours();
  for (const plot of plots) plot.draw();
  show();
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  root.dataset.theme = isDark ? "light" : "dark";
  redraw();
}

byId("theme").addEventListener("click", switchTheme);
dark.addEventListener("change", redraw);
addEventListener("hashchange", () => go(Number(location.hash.replace("#step=", "")) || 0));

byId("about").textContent = recording.about;
now = Math.min(steps - 1, Number(location.hash.replace("#step=", "")) || 0);
redraw();
