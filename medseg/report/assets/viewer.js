// The controls of the page, and what they do.

const AT_ONCE = 2; // chunks that are decoded at a time
const STEPS = 1000; // of the contrast slider, which is logarithmic

const byId = (id) => document.getElementById(id);

class Viewer {
  constructor(page) {
    this.page = page;
    this.volume = new ImageVolume(page);
    this.labels = new Labels(page);
    this.style = { opacity: 0.35, outlineOnly: false };
    this.position = [...page.start];
    this.ready = false;
    this.stale = new Set(); // panes to draw at the next frame
    this.panes = page.planes.map((layout) => new Pane(this, layout, byId("panes")));
    this.panes[0].root.classList.add("large");
    this.root = byId("viewer");
    this.root.classList.toggle("flat", page.planes.length === 1);
    this.setWindow(page.windows[0].low, page.windows[0].high);
    this.move(this.position);
  }

  move(voxel) {
    const before = this.position;
    this.position = voxel;
    for (const pane of this.panes) {
      pane.follow();
      pane.reveal();
      if (voxel[pane.layout.axis] !== before[pane.layout.axis]) this.redraw([pane]);
    }
    this.read(null);
  }

  redraw(panes = this.panes) {
    if (!this.stale.size) requestAnimationFrame(() => this.drawStale());
    for (const pane of panes) this.stale.add(pane);
  }

  drawStale() {
    const panes = [...this.stale];
    this.stale.clear();
    for (const pane of panes) pane.draw();
  }

  setWindow(low, high) {
    this.window = [low, high];
    this.greys = greyTable(this.page.values, low, high);
    this.redraw();
  }

  // Says what lies under the pointer, or under the crosshair where there is no pointer.
  read(voxel) {
    const { page, volume } = this;
    if (!voxel && !page.affine) {
      this.say("Point at the image to read it", "", "");
      return;
    }
    const at = voxel ?? this.position;
    const place = at.reduce((sum, index, axis) => sum + index * volume.strides[axis], 0);
    const full = at.map((index, axis) => index * page.steps[axis]);
    const where = page.affine
      ? millimetres(page, at).map(signed).join("  ") + " mm"
      : `row ${full[1] + 1}, column ${full[2] + 1}`;
    const value = volume.complete ? this.valueText(place) : "";
    this.say(where, value, this.labels.nameOf(volume.labels[place]) || "no label");
  }

  say(place, value, label) {
    byId("read-place").textContent = place;
    byId("read-value").textContent = value;
    byId("read-label").textContent = label;
  }

  valueText(place) {
    const { page, volume } = this;
    const channels = Array.from({ length: volume.channels }, (_, c) => volume.channels * place + c);
    const numbers = channels.map((from) => {
      const level = volume.levels[from];
      const text = numberText(page.values[level], page.digits);
      if (page.exact) return text;
      return level === 0 ? `≤ ${text}` : level === 255 ? `≥ ${text}` : `≈ ${text}`;
    });
    return `${numbers.join(", ")} ${page.unit}`.trim();
  }

  async load() {
    await Promise.all(this.page.planes.map((plane) => this.volume.loadStart(plane)));
    if (this.volume.starts.size) this.show("first");
    if (document.readyState === "loading") {
      await new Promise((done) => document.addEventListener("DOMContentLoaded", done));
    }
    const chunks = [...document.querySelectorAll("script.slices")];
    const worker = async () => {
      for (let chunk = chunks.shift(); chunk; chunk = chunks.shift()) {
        await this.volume.loadChunk(chunk);
        this.progress();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    this.show("complete");
    this.read(null);
  }

  show(state) {
    this.ready = true;
    this.root.dataset.state = state;
    this.root.dataset[state] = String(Math.round(performance.now()));
    this.redraw();
  }

  progress() {
    const share = this.volume.loaded / this.volume.size[this.page.order[0]];
    byId("loading").value = share;
    byId("loading").parentElement.hidden = share === 1;
    this.redraw();
  }
}

function numberText(value, digits) {
  return value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "");
}

// Presets, brightness and contrast.
function windowControls(viewer) {
  const { windows, values, digits, unit } = viewer.page;
  const [choice, level, width] = ["preset", "level", "width"].map(byId);
  windows.forEach(({ name, low, high }, place) => {
    const range = `${numberText(low, digits)} to ${numberText(high, digits)} ${unit}`;
    choice.add(new Option(`${name} (${range.trim()})`, String(place)));
  });
  const custom = new Option("As set below", "custom");
  choice.add(custom);
  const span = values[255] - values[0];
  const widest = 2 * span;
  const narrowest = span / 512;
  [level.min, level.max, level.step] = [values[0], values[255], span / STEPS].map(String);
  const apply = () => {
    const size = narrowest * (widest / narrowest) ** (1 - Number(width.value) / STEPS);
    const middle = values[0] + values[255] - Number(level.value); // to the right is brighter
    viewer.setWindow(middle - size / 2, middle + size / 2);
    choice.value = "custom";
    describe();
  };
  const describe = () => {
    const [low, high] = viewer.window;
    byId("level-text").textContent = numberText((low + high) / 2, digits);
    byId("width-text").textContent = numberText(high - low, digits);
  };
  const preset = () => {
    if (choice.value === "custom") return;
    const { low, high } = windows[Number(choice.value)];
    viewer.setWindow(low, high);
    level.value = String(values[0] + values[255] - (low + high) / 2);
    width.value = String(STEPS * (1 - Math.log((high - low) / narrowest) / Math.log(widest / narrowest)));
    describe();
  };
  choice.addEventListener("change", preset);
  level.addEventListener("input", apply);
  width.addEventListener("input", apply);
  preset();
}

function labelRow(viewer, label, place) {
  const row = byId("label-template").content.cloneNode(true).firstElementChild;
  const [box, go] = [row.querySelector("input"), row.querySelector("button")];
  row.dataset.name = label.name.toLowerCase();
  row.querySelector(".swatch").style.background = label.own ? "" : `rgb(${label.color.join()})`;
  row.querySelector(".swatch").classList.toggle("many", label.own);
  row.querySelector(".amount").textContent = label.amount;
  go.textContent = label.name;
  go.disabled = !label.at;
  go.dataset.label = String(label.index);
  box.setAttribute("aria-label", `Show ${label.name}`);
  box.checked = label.found;
  box.disabled = !label.found;
  box.addEventListener("change", () => {
    if (box.checked) viewer.labels.visible.add(place);
    else viewer.labels.visible.delete(place);
    viewer.labels.refresh();
    viewer.redraw();
  });
  row.classList.toggle("absent", !label.found);
  return row;
}

function labelControls(viewer) {
  const list = byId("labels");
  const rows = viewer.labels.table.map((label, place) => labelRow(viewer, label, place));
  const found = (row) => !row.classList.contains("absent");
  list.append(...rows.filter(found), ...rows.filter((row) => !found(row)));
  const setAll = (on) => {
    for (const box of list.querySelectorAll("input:enabled")) {
      if (box.checked !== on && !box.closest("li").hidden) box.click();
    }
  };
  byId("all").addEventListener("click", () => setAll(true));
  byId("none").addEventListener("click", () => setAll(false));
  const search = byId("search");
  search.hidden = rows.length <= 12;
  search.addEventListener("input", () => {
    for (const row of rows) row.hidden = !row.dataset.name.includes(search.value.toLowerCase());
  });
  byId("opacity").addEventListener("input", (event) => {
    viewer.style.opacity = Number(event.target.value) / 100;
    byId("opacity-text").textContent = `${event.target.value} %`;
    viewer.redraw();
  });
  byId("outline").addEventListener("change", (event) => {
    viewer.style.outlineOnly = event.target.checked;
    viewer.redraw();
  });
}

// A name in the list or in the table leads to the slices where most of the label is.
function goToLabels(viewer) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-label]");
    const label = button && viewer.labels.table.find((l) => String(l.index) === button.dataset.label);
    if (!label?.at) return;
    viewer.move([...label.at]);
    if (!viewer.root.contains(button)) viewer.root.scrollIntoView({ block: "start" });
  });
}

function start() {
  const viewer = new Viewer(JSON.parse(byId("page-data").textContent));
  windowControls(viewer);
  labelControls(viewer);
  goToLabels(viewer);
  const crosshair = byId("crosshair");
  crosshair.addEventListener("change", () => viewer.root.classList.toggle("no-cross", !crosshair.checked));
  byId("no-labels").hidden = !viewer.volume.labelsMissing;
  byId("viewer").hidden = false;
  return viewer.load();
}

start().catch((problem) => {
  byId("failed").hidden = false;
  byId("failed").append(` (${problem.message})`);
});
