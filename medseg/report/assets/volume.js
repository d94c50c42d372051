// The image and its labels as stored in the page, and the planes cut out of them.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = text.charCodeAt(at);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function labelArray(size, bytesEach, buffer) {
  const kind = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[bytesEach];
  return buffer ? new kind(buffer) : new kind(size);
}

// Each row but the first of a slice is stored as what differs from the row above it (exclusive or).
function undoRows(labels, rows, columns) {
  const slice = rows * columns;
  for (let start = 0; start < labels.length; start += slice) {
    for (let at = start + columns; at < start + slice; at += 1) labels[at] ^= labels[at - columns];
  }
  return labels;
}

async function decodeLabels(base64, bytesEach, rows, columns) {
  const bytes = await inflate(bytesOf(base64));
  return undoRows(labelArray(0, bytesEach, bytes.buffer), rows, columns);
}

// Levels of a picture, one a pixel, or three where the image is in colour.
async function decodePicture(base64, type, channels) {
  const blob = new Blob([bytesOf(base64)], { type });
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options);
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const levels = new Uint8Array((data.length / 4) * channels);
  if (channels === 1) {
    for (let to = 0; to < levels.length; to += 1) levels[to] = data[4 * to];
    return levels;
  }
  for (let pixel = 0, to = 0; pixel < data.length; pixel += 4) {
    for (let channel = 0; channel < channels; channel += 1) levels[to++] = data[pixel + channel];
  }
  return levels;
}

class ImageVolume {
  constructor(page) {
    this.page = page;
    this.size = page.stored;
    this.channels = page.channels;
    const [slices, rows, columns] = page.order;
    this.rows = this.size[rows];
    this.columns = this.size[columns];
    this.strides = [0, 0, 0];
    this.strides[slices] = this.rows * this.columns;
    this.strides[rows] = this.columns;
    this.strides[columns] = 1;
    const voxels = this.size[0] * this.size[1] * this.size[2];
    this.levels = new Uint8Array(voxels * this.channels);
    this.labels = labelArray(voxels, page.labelBytes);
    this.loaded = 0; // slices that are decoded
    this.labelsMissing = typeof DecompressionStream === "undefined";
    this.starts = new Map(); // planes to begin with, by the axis they are perpendicular to
  }

  get complete() {
    return this.loaded === this.size[this.page.order[0]];
  }

  async loadStart(plane) {
    if (!plane.picture) return;
    const rows = this.size[plane.axes[0]];
    const columns = this.size[plane.axes[1]];
    const [levels, labels] = await Promise.all([
      decodePicture(plane.picture, this.page.type, this.channels),
      this.labelsMissing
        ? labelArray(rows * columns, this.page.labelBytes)
        : decodeLabels(plane.labels, this.page.labelBytes, rows, columns),
    ]);
    this.starts.set(plane.axis, { index: plane.start, levels, labels });
    plane.picture = plane.labels = null;
  }

  async loadChunk(element) {
    const [labels, ...pictures] = element.textContent.trim().split(/\s+/);
    const first = Number(element.dataset.first);
    element.remove(); // its text is as large as the file
    const slice = this.rows * this.columns;
    if (!this.labelsMissing) {
      const decoded = await decodeLabels(labels, this.page.labelBytes, this.rows, this.columns);
      this.labels.set(decoded, first * slice);
    }
    const load = async (picture, number) => {
      const levels = await decodePicture(picture, this.page.type, this.channels);
      this.levels.set(levels, (first + number) * slice * this.channels);
      this.loaded += 1;
    };
    await Promise.all(pictures.map(load));
  }

  // Levels and labels of one plane, row by row as it is shown.
  plane(layout, index) {
    const start = this.starts.get(layout.axis);
    if (!this.complete && start && start.index === index) return start;
    const [rows, columns] = layout.axes.map((axis) => this.size[axis]);
    const levels = new Uint8Array(rows * columns * this.channels);
    const labels = labelArray(rows * columns, this.page.labelBytes);
    const { origin, down, across } = this.walk(layout, index);
    for (let row = 0, to = 0; row < rows; row += 1) {
      let from = origin + row * down;
      for (let column = 0; column < columns; column += 1, to += 1, from += across) {
        labels[to] = this.labels[from];
        for (let channel = 0; channel < this.channels; channel += 1) {
          levels[to * this.channels + channel] = this.levels[from * this.channels + channel];
        }
      }
    }
    return { index, levels, labels };
  }

  walk(layout, index) {
    let origin = index * this.strides[layout.axis];
    const steps = layout.axes.map((axis, side) => {
      if (!layout.flips[side]) return this.strides[axis];
      origin += (this.size[axis] - 1) * this.strides[axis];
      return -this.strides[axis];
    });
    return { origin, down: steps[0], across: steps[1] };
  }
}

// Where a voxel lies: mm from the origin of the patient's axes, to the right, front and top.
function millimetres(page, voxel) {
  return page.affine.slice(0, 3).map(
    (row) => row[3] + voxel.reduce((sum, at, axis) => sum + row[axis] * at * page.steps[axis], 0),
  );
}
