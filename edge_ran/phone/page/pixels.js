// Frame -> pixels, byte for byte as edge_ran/preprocess.py does it with OpenCV. A browser's own scaling is another one,
// and changes answers.

const f = Math.fround; // OpenCV adds up in float32

function halfToEven(x) {
  const low = Math.floor(x);
  const rest = x - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/** The part of a frame that the network sees: {left, top, width, height} in pixels. spec: {height, width, fit}. */
export function seen(width, height, spec) {
  if (spec.fit !== "crop") return { left: 0, top: 0, width, height };
  const aspect = spec.width / spec.height;
  const w = Math.min(width, Math.max(1, halfToEven(height * aspect)));
  const h = Math.min(height, Math.max(1, halfToEven(width / aspect)));
  return { left: (width - w) >> 1, top: (height - h) >> 1, width: w, height: h };
}

/** RGBA bytes of a frame -> Uint8Array (height * width * 3) in the network's size and colour order. */
export function fitPixels(rgba, frameWidth, frameHeight, spec) {
  const part = seen(frameWidth, frameHeight, spec);
  let image = crop(rgba, frameWidth, part);
  while (
    image.height >= 4 * spec.height && image.width >= 4 * spec.width && image.height % 2 === 0 && image.width % 2 === 0
  ) {
    image = halved(image);
  }
  if (image.width !== spec.width || image.height !== spec.height) {
    const shrinking = spec.height < image.height || spec.width < image.width;
    image = resize(image, spec.width, spec.height, shrinking);
  }
  if (spec.color === "bgr") {
    const data = image.data;
    for (let i = 0; i < data.length; i += 3) [data[i], data[i + 2]] = [data[i + 2], data[i]];
  }
  return image.data;
}

function crop(rgba, frameWidth, part) {
  const data = new Uint8Array(part.width * part.height * 3);
  let to = 0;
  for (let y = 0; y < part.height; y++) {
    let from = 4 * ((part.top + y) * frameWidth + part.left);
    for (let x = 0; x < part.width; x++, from += 4) {
      data[to++] = rgba[from];
      data[to++] = rgba[from + 1];
      data[to++] = rgba[from + 2];
    }
  }
  return { data, width: part.width, height: part.height };
}

function halved(image) {
  const width = image.width / 2;
  const height = image.height / 2;
  const row = image.width * 3;
  const from = image.data;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = 2 * y * row + 6 * x;
      for (let c = 0; c < 3; c++) data[to++] = (from[i + c] + from[i + 3 + c] + from[i + row + c] + from[i + row + 3 + c] + 2) >> 2;
    }
  }
  return { data, width, height };
}

function resize(image, width, height, shrinking) {
  const scaleX = 1 / (width / image.width);
  const scaleY = 1 / (height / image.height);
  if (!shrinking || scaleX < 1 || scaleY < 1) return linear(image, width, height, scaleX, scaleY, shrinking);
  const [wholeX, wholeY] = [Math.round(scaleX), Math.round(scaleY)];
  const isWhole = Math.abs(scaleX - wholeX) < Number.EPSILON && Math.abs(scaleY - wholeY) < Number.EPSILON;
  if (isWhole && wholeX === 2 && wholeY === 2) return halved(image);
  return isWhole ? areaOfWholePixels(image, width, height, wholeX, wholeY) : area(image, width, height, scaleX, scaleY);
}

function areaOfWholePixels(image, width, height, stepX, stepY) {
  const data = new Uint8Array(width * height * 3);
  const share = f(1 / (stepX * stepY));
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let v = 0; v < stepY; v++) {
          let i = ((y * stepY + v) * image.width + x * stepX) * 3 + c;
          for (let u = 0; u < stepX; u++, i += 3) sum += image.data[i];
        }
        data[to++] = halfToEven(f(f(sum) * share));
      }
    }
  }
  return { data, width, height };
}

// Which source cells cover a target cell, and by how much: [target, source, share] in the order of OpenCV.
function cover(from, to, scale) {
  const found = [];
  for (let d = 0; d < to; d++) {
    const begin = d * scale;
    const end = begin + scale;
    const cell = Math.min(scale, from - begin);
    const last = Math.min(Math.floor(end), from - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) found.push([d, first - 1, f((first - begin) / cell)]);
    for (let s = first; s < last; s++) found.push([d, s, f(1 / cell)]);
    if (end - last > 1e-3) found.push([d, last, f(Math.min(Math.min(end - last, 1), cell) / cell)]);
  }
  return found;
}

function area(image, width, height, scaleX, scaleY) {
  const data = new Uint8Array(width * height * 3);
  const across = cover(image.width, width, scaleX);
  const row = new Float32Array(width * 3);
  const sum = new Float32Array(width * 3);
  let before = -1;
  const write = (y) => {
    for (let i = 0; i < sum.length; i++) data[y * sum.length + i] = Math.min(255, halfToEven(sum[i]));
  };
  for (const [y, source, share] of cover(image.height, height, scaleY)) {
    row.fill(0);
    const start = source * image.width * 3;
    for (const [x, from, part] of across) {
      const i = start + 3 * from;
      for (let c = 0; c < 3; c++) row[3 * x + c] = f(row[3 * x + c] + f(image.data[i + c] * part));
    }
    if (y !== before) {
      if (before >= 0) write(before);
      for (let i = 0; i < sum.length; i++) sum[i] = f(share * row[i]);
      before = y;
    } else {
      for (let i = 0; i < sum.length; i++) sum[i] = f(sum[i] + f(share * row[i]));
    }
  }
  write(before);
  return { data, width, height };
}

const STEPS = 2048; // OpenCV's weights have eleven bits

// Where a target pixel lies between two source pixels: [first, weight of the first, weight of the second].
function between(to, scale, likeArea) {
  const found = [];
  for (let d = 0; d < to; d++) {
    let s, share;
    if (likeArea) {
      s = Math.floor(d * scale);
      share = f(d + 1 - (s + 1) / scale);
      share = share <= 0 ? 0 : f(share - Math.floor(share));
    } else {
      share = f((d + 0.5) * scale - 0.5);
      s = Math.floor(share);
      share = f(share - s);
    }
    found.push([s, halfToEven(f(f(1 - share) * STEPS)), halfToEven(f(share * STEPS))]);
  }
  return found;
}

function linear(image, width, height, scaleX, scaleY, likeArea) {
  const data = new Uint8Array(width * height * 3);
  const inside = (s, size) => Math.min(Math.max(s, 0), size - 1);
  // Outside the picture OpenCV gives a column the border's whole weight, but blends a border's row with itself.
  const across = between(width, scaleX, likeArea).map(([s, a, b]) =>
    s < 0 || s >= image.width - 1 ? [inside(s, image.width), STEPS, 0] : [s, a, b],
  );
  const rowOf = (y) => {
    const out = new Int32Array(width * 3);
    for (let x = 0; x < width; x++) {
      const [s, a, b] = across[x];
      const i = (y * image.width + s) * 3;
      const j = s + 1 < image.width ? i + 3 : i;
      for (let c = 0; c < 3; c++) out[3 * x + c] = image.data[i + c] * a + image.data[j + c] * b;
    }
    return out;
  };
  between(height, scaleY, likeArea).forEach(([s, a, b], y) => {
    const first = rowOf(inside(s, image.height));
    const second = rowOf(inside(s + 1, image.height));
    for (let i = 0; i < first.length; i++) {
      data[y * first.length + i] = (((a * (first[i] >> 4)) >> 16) + ((b * (second[i] >> 4)) >> 16) + 2) >> 2;
    }
  });
  return { data, width, height };
}
