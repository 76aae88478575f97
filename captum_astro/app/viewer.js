// Draws the maps over their image: linked zoom, opacity, colour bars, and a click on a patch.
// Gradio runs this once for the component, with element, props, watch and trigger.
const STEP = 1.5, MOST = 16, DRAG = 4;
const view = {scale: 1, x: 0, y: 0};  // of every panel: x and y are the shift, in widths and heights of a panel
let opacity = 0.8, moved = 0, held = null;

function make(name, className, parent, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;  // never HTML: names are anyone's
  if (parent) parent.append(made);
  return made;
}

const data = () => props.value || null;
const frames = () => element.querySelectorAll(".ca-frame");

function place() {
  const most = 1 - view.scale;
  view.x = Math.min(0, Math.max(most, view.x));
  view.y = Math.min(0, Math.max(most, view.y));
  for (const frame of frames()) {
    frame.firstChild.style.transform =
      `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.scale})`;
    frame.classList.toggle("ca-zoomed", view.scale > 1);
  }
}

function zoom(factor, x = 0.5, y = 0.5) {
  const scale = Math.min(MOST, Math.max(1, view.scale * factor)), grown = scale / view.scale;
  Object.assign(view, {scale, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown});
  place();
}

function at(frame, event) {  // where the pointer is in a frame, from 0 to 1
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function patchAt(frame, event) {
  const shown = data(), [x, y] = at(frame, event);
  if (!shown.grid) return null;
  const [left, top, right, bottom] = shown.box, [rows, columns] = shown.grid;
  const column = Math.floor((((x - view.x) / view.scale) * shown.width - left) / (right - left) * columns);
  const row = Math.floor((((y - view.y) / view.scale) * shown.height - top) / (bottom - top) * rows);
  return row >= 0 && row < rows && column >= 0 && column < columns ? {row, column} : null;
}

function part(parent, className, shown, cell) {  // a part of the image: what the model sees, or a cell of a grid on it
  const [left, top, right, bottom] = shown.box, [row, column, rows, columns] = cell || [0, 0, 1, 1];
  const width = (right - left) / columns, height = (bottom - top) / rows;
  const made = make(className === "ca-map" ? "img" : "div", className, parent);
  Object.assign(made.style, {
    left: `${(left + column * width) / shown.width * 100}%`, top: `${(top + row * height) / shown.height * 100}%`,
    width: `${width / shown.width * 100}%`, height: `${height / shown.height * 100}%`,
  });
  return made;
}

function listen(frame) {
  frame.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;  // without a key the page scrolls; a pinch has ctrlKey
    event.preventDefault();
    zoom(event.deltaY < 0 ? STEP : 1 / STEP, ...at(frame, event));
  }, {passive: false});
  frame.addEventListener("dblclick", event => zoom(STEP * STEP, ...at(frame, event)));
  frame.addEventListener("pointerdown", event => {
    held = at(frame, event);
    moved = 0;
    if (view.scale > 1) frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", event => {
    if (!held) return;
    const now = at(frame, event), size = frame.clientWidth;
    moved += (Math.abs(now[0] - held[0]) + Math.abs(now[1] - held[1])) * size;
    if (view.scale > 1) {
      view.x += now[0] - held[0];
      view.y += now[1] - held[1];
      place();
    }
    held = now;
  });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => { held = null; });
  frame.addEventListener("click", event => {
    const patch = moved < DRAG && event.detail < 2 ? patchAt(frame, event) : null;
    if (patch) trigger("select", patch);
  });
}

function panel(parent, shown, one) {
  const figure = make("figure", "ca-panel", parent);
  make("figcaption", "", figure, one.title);
  const frame = make("div", "ca-frame", figure);
  frame.style.aspectRatio = `${shown.width} / ${shown.height}`;
  const inside = make("div", "ca-inside", frame), image = make("img", "ca-image", inside);
  image.src = shown.image;
  image.alt = one.title;
  image.draggable = false;
  if (one.layer) {
    const map = part(inside, "ca-map", shown);
    map.src = one.layer;
    map.alt = "";
    map.draggable = false;
    map.style.opacity = opacity;
    if (!one.smooth) map.style.imageRendering = "pixelated";
  }
  if (shown.crop) part(inside, "ca-seen", shown);
  if (shown.token) part(inside, "ca-token", shown, shown.token.outline);
  listen(frame);
  if (one.bar) {
    const bar = make("div", "ca-bar", figure);
    bar.title = one.bar.reason;
    make("div", "ca-strip", bar).style.background = `linear-gradient(to right, ${one.bar.colours.join(", ")})`;
    const ticks = make("div", "ca-ticks", bar);
    one.bar.ticks.forEach(tick => make("span", "", ticks, tick));
  }
}

function controls(parent) {
  const tools = make("div", "ca-tools", parent);
  const label = make("label", "", tools, "Opacity ");
  const slider = make("input", "", label);
  Object.assign(slider, {type: "range", min: 0, max: 1, step: 0.05, value: opacity});
  slider.addEventListener("input", () => {
    opacity = Number(slider.value);
    element.querySelectorAll(".ca-map").forEach(map => { map.style.opacity = opacity; });
  });
  const buttons = make("span", "ca-buttons", tools);
  for (const [text, name, act] of [
    ["−", "Zoom out", () => zoom(1 / STEP)],
    ["+", "Zoom in", () => zoom(STEP)],
    ["1:1", "Whole image", () => zoom(1 / MOST)],
  ]) {
    const button = make("button", "", buttons, text);
    Object.assign(button, {type: "button", title: name, ariaLabel: name, onclick: act});
  }
}

function draw() {
  const shown = data(), root = element.querySelector(".ca-viewer");
  if (!root) return;
  root.replaceChildren();
  if (!shown || !shown.image) {
    make("p", "ca-empty", root, "Drop an image, or try a scene: its maps appear here.");
    return;
  }
  if (shown.groups.length) controls(root);
  shown.notes.forEach(note => make("p", "ca-note", root, note));
  const single = shown.groups.every(group => group.panels.length === 1);
  const rows = single ? [shown.groups.flatMap(group => group.panels)] : shown.groups.map(group => group.panels);
  const picture = {title: (shown.classes || ["The image"])[0]};
  if (shown.token) rows.unshift([picture, shown.token]);
  else if (single || !rows.length) (rows[0] = rows[0] || []).unshift(picture);
  for (const row of rows) {
    const line = make("div", "ca-row", root);
    row.forEach(one => panel(line, shown, one));
  }
  if (shown.classes) make("p", "ca-hint", root, `Top classes: ${shown.classes.join(", ")}.`);
  const hints = [shown.crop, shown.grid && "Click on a patch to see where its final token comes from."];
  make("p", "ca-hint", root, hints.filter(Boolean).join(" "));
  place();
  if (shown.groups.length) root.querySelector(".ca-row").scrollIntoView({block: "nearest", behavior: "smooth"});
}

watch("value", draw);
draw();
