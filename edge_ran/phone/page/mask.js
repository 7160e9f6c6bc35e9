// The network's soft attention over the picture: dark violet where it is lowest in this frame, yellow where highest.

import { seen } from "./pixels.js";

// Eight steps of the viridis colour map; between them colours are blended.
const COLOURS = [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [159, 218, 58], [253, 231, 37]];

/** Draw the mean of the masks. masks: one Float32Array a module; size: {width, height} of the frame. */
export function drawMask(canvas, masks, config, size) {
  const context = canvas.getContext("2d");
  Object.assign(canvas, size);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!masks.length) return;
  const shapes = config.files[0].outputs.slice(1).map((one) => one.shape);
  const finest = shapes.reduce((best, [, rows], i) => (rows > shapes[best][1] ? i : best), 0);
  const [, rows, columns] = shapes[finest];
  const mean = new Float32Array(rows * columns);
  masks.forEach((mask, m) => {
    const [, r, c, channels] = shapes[m];
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const from = (Math.floor((y * r) / rows) * c + Math.floor((x * c) / columns)) * channels;
        mean[y * columns + x] += mask[from] / masks.length;
      }
    }
  });
  const small = new OffscreenCanvas(columns, rows);
  const picture = new ImageData(columns, rows);
  const low = Math.min(...mean);
  const range = Math.max(Math.max(...mean) - low, 1e-9);
  mean.forEach((value, i) => picture.data.set([...colourOf((value - low) / range), 255], 4 * i));
  small.getContext("2d").putImageData(picture, 0, 0);
  const part = seen(size.width, size.height, config.input);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, part.left, part.top, part.width, part.height);
}

function colourOf(share) {
  const place = share * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((v, c) => Math.round(v + (COLOURS[low + 1][c] - v) * (place - low)));
}
