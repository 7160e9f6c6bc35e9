// Whether an accelerator's answers are those of the CPU: the same measures and limits as edge_ran/runtime/agreement.py.
// The limits come with the site, in config.json.

/**
 * Compare every output: class scores first, masks after them.
 * reference, answers: [input][output] -> Float32Array of real values; tensors: [{scale}]; limits: of config.json;
 * allowed_error: the relative error that rounding may make.
 */
export function compareAll(reference, answers, tensors, limits, allowed_error) {
  const found = compare(reference.map((r) => r[0]), answers.map((a) => a[0]), tensors[0]);
  let masks = 0;
  for (let i = 1; i < tensors.length; i++) {
    const mask = compare(reference.map((r) => r[i]), answers.map((a) => a[i]), tensors[i]);
    masks = Math.max(masks, mask.largest_difference / Math.max(mask.answers_range, limits.fewest_levels * tensors[i].scale, 1e-12));
  }
  found.masks_difference = masks;
  const small = found.largest_difference <= limits.largest_difference * found.answers_range || found.largest_difference === 0;
  found.is_right = small && found.relative_error <= allowed_error && masks <= limits.largest_difference;
  return found;
}

function compare(reference, answers, tensor) {
  let low = Infinity, high = -Infinity, sum = 0, count = 0, largest = 0, most = 0;
  for (const values of reference) {
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
      largest = Math.max(largest, Math.abs(value));
      sum += value;
      count++;
    }
  }
  const mean = sum / count;
  let spread = 0, error = 0, top1 = 0;
  reference.forEach((right, i) => {
    const other = answers[i];
    let best = 0, top = -Infinity;
    for (let k = 0; k < right.length; k++) {
      const value = Number.isFinite(other[k]) ? other[k] : 1e9;
      const difference = value - right[k];
      most = Math.max(most, Math.abs(difference));
      error += difference * difference;
      spread += (right[k] - mean) ** 2;
      if (value > top) [top, best] = [value, k];
    }
    if (right[best] === Math.max(...right)) top1++;
  });
  const least = Math.max(tensor.scale / 2, 1e-6 * largest, 1e-12);
  return {
    pictures: reference.length,
    top1: top1 / reference.length,
    largest_difference: most,
    relative_error: Math.sqrt(error / count) / Math.max(Math.sqrt(spread / count), least),
    answers_range: high - low,
  };
}
