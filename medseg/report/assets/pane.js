// One plane on the screen: canvas, letters, crosshair, scale bar, slider.

const MARGIN = 26; // room for letters and scale at each side; CSS pixels
const SMALLEST = 24;
const BAR_SHARE = 0.3;
const ZOOM = 1.5; // a step
const MOST_ZOOM = 40;
const DIRECTIONS = [["L", "R"], ["P", "A"], ["I", "S"]];
const WORLD_AXIS = { sagittal: 0, coronal: 1, axial: 2 };

const signed = (value, axis) =>
  `${DIRECTIONS[axis][Number(value >= 0)]} ${Math.abs(value).toFixed(1)}`;

// The longest of 1, 2 and 5 times a power of ten that is no longer than `most`.
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((factor) => factor * power <= most) * power;
}

class Pane {
  constructor(viewer, layout, holder) {
    this.viewer = viewer;
    this.layout = layout;
    this.size = layout.axes.map((axis) => viewer.volume.size[axis]);
    const content = document.getElementById("pane-template").content.cloneNode(true);
    this.root = content.firstElementChild;
    holder.append(content);
    const part = (name) => this.root.querySelector(`.${name}`);
    this.canvas = part("picture");
    this.stage = part("stage");
    this.frame = part("frame");
    this.slider = part("slice");
    this.where = part("where");
    this.lines = [part("line-across"), part("line-down")];
    this.bar = part("scale");
    this.view = { scale: 1, origin: [0, 0] }; // origin: shares of the picture above and left of it
    this.name(part);
    this.listen(part);
  }

  get count() {
    return this.viewer.volume.size[this.layout.axis];
  }

  name(part) {
    const { name, edges } = this.layout;
    const title = name ? name[0].toUpperCase() + name.slice(1) : "Image";
    this.root.dataset.plane = name || "image";
    part("title").textContent = title;
    ["left", "right", "top", "bottom"].forEach((side, place) => {
      part(`letter-${side}`).textContent = edges[place];
    });
    this.slider.max = String(this.count - 1);
    this.slider.hidden = this.count < 2;
    this.slider.setAttribute("aria-label", `${title} slice`);
    this.canvas.setAttribute("aria-label", `${title} plane; arrow keys change the slice`);
    part("enlarge").setAttribute("aria-label", `Enlarge ${title}`);
    part("zoom-in").setAttribute("aria-label", `Zoom in ${title}`);
    part("zoom-out").setAttribute("aria-label", `Zoom out ${title}`);
  }

  listen(part) {
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("click", (event) => {
      if (!this.pans(event)) this.viewer.move(this.voxelAt(event));
    });
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.viewer.read(null));
    part("zoom-in").addEventListener("click", () => this.zoom(ZOOM, this.middle()));
    part("zoom-out").addEventListener("click", () => this.zoom(1 / ZOOM, this.middle()));
    part("enlarge").addEventListener("click", () => {
      for (const pane of this.viewer.panes) pane.root.classList.toggle("large", pane === this);
    });
    new ResizeObserver(() => this.fit()).observe(this.stage);
  }

  // Changes the slice; with control, or where there is one slice alone, magnifies.
  wheel(event) {
    event.preventDefault();
    const step = Math.sign(event.deltaY);
    if (event.ctrlKey || this.count < 2) this.zoom(ZOOM ** -step, this.placeAt(event));
    else if (step) this.go(this.index + step);
  }

  point(event) {
    const dragged = event.pointerType === "mouse" && event.buttons === 1;
    if (dragged && this.pans(event)) this.pan(event);
    else if (dragged) this.viewer.move(this.voxelAt(event));
    this.viewer.read(this.voxelAt(event));
  }

  // Whether dragging moves the picture, not the crosshair: with shift, or where there is no crosshair.
  pans(event) {
    return event.shiftKey || !this.layout.name;
  }

  pan(event) {
    const { scale, origin } = this.view;
    const box = this.canvas.getBoundingClientRect();
    const moved = [event.movementY / box.height, event.movementX / box.width];
    this.look(scale, origin.map((at, side) => at - moved[side] / scale));
  }

  // Magnifies, and keeps a place of the picture where it is on the screen.
  zoom(factor, place) {
    const before = this.view;
    const scale = Math.max(1, Math.min(MOST_ZOOM, before.scale * factor));
    const shift = before.scale / scale;
    this.look(scale, place.map((share, side) => share - (share - before.origin[side]) * shift));
  }

  look(scale, origin) {
    const most = 1 - 1 / scale;
    this.view = { scale, origin: origin.map((at) => Math.max(0, Math.min(most, at))) };
    this.fitBar();
    this.follow();
    this.viewer.redraw([this]);
  }

  // Brings the crosshair into view.
  reveal() {
    const { scale, origin } = this.view;
    const crossing = this.crossing();
    const inside = crossing.every((at, side) => at >= origin[side] && at <= origin[side] + 1 / scale);
    if (!inside) this.look(scale, crossing.map((at) => at - 0.5 / scale));
  }

  // Where the crosshair lies, and what to magnify about: shares of height and width.
  crossing() {
    return this.layout.axes.map((axis, side) => {
      const share = (this.viewer.position[axis] + 0.5) / this.size[side];
      return this.layout.flips[side] ? 1 - share : share;
    });
  }

  middle() {
    if (this.layout.name) return this.crossing();
    return this.view.origin.map((at) => at + 0.5 / this.view.scale);
  }

  key(event) {
    const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };
    const pages = { PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    const by = { ...steps, ...pages }[event.key];
    const factor = { "+": ZOOM, "=": ZOOM, "-": 1 / ZOOM, 0: 1 / MOST_ZOOM }[event.key];
    if (factor && !event.ctrlKey) this.zoom(factor, this.middle());
    if (by === undefined || this.count < 2) return;
    event.preventDefault();
    this.go(this.index + by);
  }

  get index() {
    return this.viewer.position[this.layout.axis];
  }

  go(index) {
    const voxel = [...this.viewer.position];
    voxel[this.layout.axis] = Math.max(0, Math.min(this.count - 1, index));
    this.viewer.move(voxel);
  }

  // The place of the picture under the pointer: shares of its height and width.
  placeAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const shares = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    return shares.map((share, side) => this.view.origin[side] + share / this.view.scale);
  }

  // The voxel under the pointer, counted along the axes as stored.
  voxelAt(event) {
    const place = this.placeAt(event);
    const voxel = [...this.viewer.position];
    this.layout.axes.forEach((axis, side) => {
      const count = this.size[side];
      const at = Math.max(0, Math.min(count - 1, Math.floor(place[side] * count)));
      voxel[axis] = this.layout.flips[side] ? count - 1 - at : at;
    });
    return voxel;
  }

  // Gives the canvas the proportions of the patient, as large as there is room.
  fit() {
    const { stage, layout } = this;
    const lengths = this.size.map((count, side) => count * layout.pixel[side]);
    const room = [stage.clientHeight - 2 * MARGIN, stage.clientWidth - 2 * MARGIN];
    const scale = Math.min(room[0] / lengths[0], room[1] / lengths[1]);
    if (!(scale > 0)) return;
    const [height, width] = lengths.map((length) => Math.max(SMALLEST, Math.round(length * scale)));
    const ratio = window.devicePixelRatio || 1;
    this.frame.style.width = `${width}px`;
    this.frame.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.fitBar();
    this.draw();
  }

  fitBar() {
    const { unit, pixel } = this.layout;
    const length = (this.size[1] * pixel[1]) / this.view.scale;
    const bar = roundLength(length * BAR_SHARE);
    this.bar.style.width = `${(100 * bar) / length}%`;
    const text = unit === "mm" && bar < 0.1 ? `${Number((bar * 1000).toPrecision(1))} µm` : `${bar} ${unit}`;
    this.bar.firstElementChild.textContent = text;
  }

  draw() {
    const { viewer, canvas } = this;
    if (!viewer.ready) return;
    this.cut();
    const reach = Math.max(1, Math.round(window.devicePixelRatio || 1));
    const style = { ...viewer.style, reach, view: this.view };
    paintPlane(canvas, this.image, this.plane.labels, viewer.labels, style);
  }

  // Takes the plane out of the volume, unless it is the one that was drawn last.
  cut() {
    const { volume, greys } = this.viewer;
    const state = [this.index, volume.loaded, greys];
    if (this.state && state.every((value, place) => value === this.state[place])) return;
    this.state = state;
    this.plane = volume.plane(this.layout, this.index);
    const pixels = imagePixels(this.plane.levels, volume.channels, greys);
    this.image = canvasOf(pixels, this.size[1], this.size[0]);
  }

  // Moves what is not the picture: slider, numbers, crosshair.
  follow() {
    const { viewer, layout, slider } = this;
    slider.value = String(this.index);
    this.crossing().forEach((share, side) => {
      const at = (share - this.view.origin[side]) * this.view.scale;
      this.lines[side].style[side === 0 ? "top" : "left"] = `${100 * at}%`;
      this.lines[side].hidden = at < 0 || at > 1;
    });
    this.where.textContent = this.count < 2 && !layout.name ? "" : this.place();
    slider.setAttribute("aria-valuetext", this.where.textContent);
  }

  place() {
    const { page, position } = this.viewer;
    const axis = WORLD_AXIS[this.layout.name];
    const number = this.index * page.steps[this.layout.axis] + 1;
    const at = millimetres(page, position)[axis];
    return `${number} / ${page.shape[this.layout.axis]}  ·  ${signed(at, axis)} mm`;
  }
}
