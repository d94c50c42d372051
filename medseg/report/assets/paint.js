// Colours of labels, and planes painted on canvases.

const OUTLINE = 2.7; // an outline is so many times as opaque as what it holds, up to 1

class Labels {
  constructor(page) {
    const palette = bytesOf(page.palette);
    this.table = page.labels;
    this.palette = palette;
    this.largest = palette.length / 3 - 1;
    this.visible = new Set(this.table.map((_, place) => place));
    this.holders = Array.from({ length: this.largest + 1 }, () => []);
    this.table.forEach((label, place) => {
      const values = label.all ? this.holders.keys() : label.values;
      for (const value of values) if (value > 0) this.holders[value].push(place);
    });
    const size = (place) => (this.table[place].all ? Infinity : this.table[place].values.length);
    for (const places of this.holders) places.sort((a, b) => size(a) - size(b));
    this.refresh();
  }

  // What each value of the mask is painted as: 0 for nothing, else a place in the palette.
  // A voxel of nested regions is painted as the innermost of those that are switched on.
  refresh() {
    this.keys = new Uint32Array(this.largest + 1);
    this.holders.forEach((places, value) => {
      const shown = places.find((place) => this.visible.has(place));
      if (shown === undefined) return;
      const label = this.table[shown];
      this.keys[value] = label.own ? value : label.index;
    });
  }

  nameOf(value) {
    const names = this.holders[value].map((place) => this.table[place].name);
    if (!names.length) return "";
    const own = this.table[this.holders[value][0]].own;
    return own ? `${names[0]} ${value}` : names.join(", in ");
  }
}

function greyTable(values, low, high) {
  const table = new Uint8ClampedArray(256);
  for (let level = 0; level < 256; level += 1) {
    table[level] = Math.round(((values[level] - low) / Math.max(high - low, 1e-30)) * 255);
  }
  return table;
}

function imagePixels(levels, channels, greys) {
  const pixels = new Uint8ClampedArray((levels.length / channels) * 4);
  const green = channels === 3 ? 1 : 0;
  for (let from = 0, to = 0; from < levels.length; from += channels, to += 4) {
    pixels[to] = greys[levels[from]];
    pixels[to + 1] = greys[levels[from + green]];
    pixels[to + 2] = greys[levels[from + 2 * green]];
    pixels[to + 3] = 255;
  }
  return pixels;
}

// The row or column that each pixel of the screen shows.
function sources(length, count, origin, scale) {
  const source = new Uint32Array(length);
  for (let at = 0; at < length; at += 1) {
    const share = origin + (at + 0.5) / (length * scale);
    source[at] = Math.min(count - 1, Math.floor(share * count));
  }
  return source;
}

// The key of each pixel of the screen: the nearest voxel's.
function keysOnScreen(labels, keys, columns, across, down) {
  const shown = new Uint32Array(across.length * down.length);
  let to = 0;
  for (const row of down) {
    for (const column of across) shown[to++] = keys[labels[row * columns + column]];
  }
  return shown;
}

function isEdge(shown, x, y, width, height, reach) {
  const at = y * width + x;
  const key = shown[at];
  return (
    (x >= reach && shown[at - reach] !== key) ||
    (x < width - reach && shown[at + reach] !== key) ||
    (y >= reach && shown[at - reach * width] !== key) ||
    (y < height - reach && shown[at + reach * width] !== key)
  );
}

function overlayPixels(shown, width, height, palette, style) {
  const pixels = new Uint8ClampedArray(width * height * 4);
  const fill = style.outlineOnly ? 0 : Math.round(255 * style.opacity);
  const line = Math.round(255 * Math.min(1, OUTLINE * style.opacity));
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 1) {
      const key = shown[at];
      if (!key) continue;
      const edge = isEdge(shown, x, y, width, height, style.reach);
      for (let part = 0; part < 3; part += 1) pixels[4 * at + part] = palette[3 * key + part];
      pixels[4 * at + 3] = edge ? line : fill;
    }
  }
  return pixels;
}

function canvasOf(pixels, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

// Paints an image, a voxel a pixel, and its labels so that what is in view fills a canvas.
function paintPlane(canvas, image, values, labels, style) {
  const { width, height } = canvas;
  const { width: columns, height: rows } = image;
  const { scale, origin } = style.view;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const seen = [origin[1] * columns, origin[0] * rows, columns / scale, rows / scale];
  context.drawImage(image, ...seen, 0, 0, width, height);
  if (style.opacity === 0) return;
  const across = sources(width, columns, origin[1], scale);
  const down = sources(height, rows, origin[0], scale);
  const shown = keysOnScreen(values, labels.keys, columns, across, down);
  const overlay = overlayPixels(shown, width, height, labels.palette, style);
  context.drawImage(canvasOf(overlay, width, height), 0, 0);
}
