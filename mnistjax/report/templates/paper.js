// Separating the ink of a picture from its paper, as `mnistjax.reading` does.

const DIGIT_SIDE = 400; // The longer side at which a picture is analyzed.
const SMOOTH_SIDE = 64;
const TERMS = 6; // Of a quadratic surface.
const MAD_TO_STD = 1.4826;
const MIN_NOISE = 0.004;

// Returns { mask, strength, clarity }: the ink, how much each pixel differs from the paper, and the
// distance between ink and paper in standard deviations of the paper.
function findInk(picture) {
  const gray = resize(picture, ...fitSize(picture, DIGIT_SIDE));
  const strength = gaussianBlur(inkStrength(gray, smoothBackground(gray)), 1.5);
  const threshold = otsuThreshold(strength.data);
  const mask = maskAbove(strength, threshold);
  return { mask, strength, clarity: measureClarity(mask.data, strength.data) };
}

function maskAbove({ height, width, data }, threshold) {
  const mask = new Uint8Array(data.length);
  for (let at = 0; at < mask.length; at++) if (data[at] > threshold) mask[at] = 1;
  return { height, width, data: mask };
}

function measureClarity(mask, strength) {
  let count = 0;
  let ink = 0;
  let paper = 0;
  let squares = 0;
  for (let at = 0; at < mask.length; at++) {
    const value = strength[at];
    if (mask[at]) {
      count += 1;
      ink += value;
    } else {
      paper += value;
      squares += value * value;
    }
  }
  const mean = paper / (mask.length - count);
  const deviation = Math.sqrt(Math.max(squares / (mask.length - count) - mean * mean, 0));
  return (ink / count - mean) / (deviation + 1e-6);
}

// The paper under the ink: a quadratic surface, fitted by iteratively reweighted least squares, at
// first to the border alone.
function smoothBackground(gray) {
  const small = resize(gray, ...fitSize(gray, Math.min(SMOOTH_SIDE, longSide(gray))));
  const terms = quadraticTerms(small);
  const residuals = new Float64Array(small.data.length);
  let weights = borderOf(small);
  let used = 3; // A plane for the border, a quadratic surface from the second fit on.
  let fit = [];
  for (let i = 0; i < 12; i++) {
    fit = fitTerms(terms, used, small.data, weights);
    const scale = measureResiduals(terms, fit, small.data, weights, residuals);
    const next = new Float64Array(residuals.length);
    let change = 0;
    for (let at = 0; at < next.length; at++) {
      const ratio = residuals[at] / scale;
      next[at] = Math.max(1 - ratio * ratio, 0) ** 2;
      change = Math.max(change, Math.abs(next[at] - weights[at]));
    }
    // From here on the surface changes by less than float32 can tell.
    if (used === TERMS && change < 1e-4) break;
    weights = next;
    used = TERMS;
  }
  return evaluateQuadratic(gray, fit);
}

// Fills in the residuals of a fit, and returns the one from which on a pixel does not count.
function measureResiduals(terms, fit, values, weights, residuals) {
  const near = new Float64Array(values.length);
  let count = 0;
  let large = 0;
  for (let at = 0; at < values.length; at++) {
    let surface = 0;
    for (let i = 0; i < fit.length; i++) surface += fit[i] * terms[TERMS * at + i];
    residuals[at] = values[at] - surface;
    if (weights[at] === 0) continue;
    near[count++] = Math.abs(residuals[at]);
    if (MAD_TO_STD * Math.abs(residuals[at]) > MIN_NOISE) large += 1;
  }
  // Sorting is not needed where the median is small, as in drawings.
  const isClean = 2 * (large + 1) < count;
  const noise = isClean ? 0 : MAD_TO_STD * median(near.subarray(0, count));
  return 4.685 * Math.max(noise, MIN_NOISE);
}

// Returns numbers from -1 to 1, evenly spaced.
function spread(size) {
  const numbers = new Float64Array(size);
  for (let i = 0; i < size && size > 1; i++) numbers[i] = (2 * i) / (size - 1) - 1;
  return numbers;
}

// The terms of a quadratic surface at each pixel: 1, x, y, x x, x y, y y.
function quadraticTerms({ height, width }) {
  const [down, across] = [spread(height), spread(width)];
  const terms = new Float64Array(TERMS * height * width);
  let at = 0;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at += TERMS) {
      const [y, x] = [down[row], across[column]];
      terms[at] = 1;
      terms[at + 1] = x;
      terms[at + 2] = y;
      terms[at + 3] = x * x;
      terms[at + 4] = x * y;
      terms[at + 5] = y * y;
    }
  }
  return terms;
}

function evaluateQuadratic({ height, width }, [one, x1, y1, xx = 0, xy = 0, yy = 0]) {
  const [down, across] = [spread(height), spread(width)];
  const data = new Float32Array(height * width);
  let at = 0;
  for (let row = 0; row < height; row++) {
    const y = down[row];
    const constant = one + y1 * y + yy * y * y;
    const slope = x1 + xy * y;
    for (let column = 0; column < width; column++) {
      const x = across[column];
      data[at++] = constant + (slope + xx * x) * x;
    }
  }
  return { height, width, data };
}

function borderOf({ height, width }) {
  const depth = Math.max(1, roundEven(0.08 * Math.min(height, width)));
  const weights = new Float64Array(height * width).fill(1);
  for (let row = depth; row < height - depth; row++) {
    if (width > 2 * depth) weights.fill(0, row * width + depth, (row + 1) * width - depth);
  }
  return weights;
}

// Solves weighted least squares by its normal equations; terms that others determine get 0.
function fitTerms(terms, used, values, weights) {
  const rows = Array.from({ length: used }, () => new Float64Array(used + 1));
  for (let at = 0; at < values.length; at++) {
    if (!weights[at]) continue;
    for (let i = 0; i < used; i++) {
      const row = rows[i];
      const weighted = weights[at] * terms[TERMS * at + i];
      for (let j = 0; j < used; j++) row[j] += weighted * terms[TERMS * at + j];
      row[used] += weighted * values[at];
    }
  }
  const smallest = 1e-12 * Math.max(...rows.map((row, i) => row[i]));
  const solved = new Array(used).fill(false);
  for (let step = 0; step < used; step++) { // Gauss and Jordan, the largest pivot first.
    let pivot = -1;
    for (let i = 0; i < used; i++) {
      if (!solved[i] && (pivot < 0 || rows[i][i] > rows[pivot][pivot])) pivot = i;
    }
    if (rows[pivot][pivot] <= smallest) break;
    solved[pivot] = true;
    for (let i = 0; i < used; i++) {
      if (i === pivot) continue;
      const factor = rows[i][pivot] / rows[pivot][pivot];
      for (let j = 0; j <= used; j++) rows[i][j] -= factor * rows[pivot][j];
    }
  }
  return rows.map((row, i) => (solved[i] ? row[used] / row[i] : 0));
}

// How much each pixel differs from the paper, in the direction of the ink, which may be darker or
// lighter: the sum of the outliers decides. It takes the place of the background.
function inkStrength(gray, background) {
  const { data } = background;
  for (let at = 0; at < data.length; at++) data[at] = gray.data[at] - data[at];
  const limit = 3 * MAD_TO_STD * medianMagnitude(data);
  let sum = 0;
  for (let at = 0; at < data.length; at++) if (Math.abs(data[at]) > limit) sum += data[at];
  for (let at = 0; at < data.length && sum <= 0; at++) data[at] = -data[at];
  return { ...gray, data };
}

// Returns the median of the absolute values of float32 numbers, to about 1 %. Bits of positive
// numbers are in the order of the numbers, so their upper halves are counted.
function medianMagnitude(data) {
  const counts = new Uint32Array(1 << 15);
  const bits = new Uint32Array(data.buffer);
  for (let at = 0; at < bits.length; at++) counts[(bits[at] >>> 16) & 0x7fff]++;
  let left = data.length >> 1;
  let half = 0;
  while (left >= counts[half]) left -= counts[half++];
  return new Float32Array(Uint32Array.of(half << 16).buffer)[0];
}

// Otsu's threshold from a histogram of 256 bins, whose edges NumPy rounds to float32.
function otsuThreshold(values) {
  const [low, high] = rangeOf(values);
  const bins = 256;
  const step = Math.fround(Math.fround(high - low) / bins);
  const edges = new Float32Array(bins + 1);
  for (let i = 0; i <= bins; i++) edges[i] = Math.fround(i * step) + low;
  edges[bins] = high;
  const counts = new Float64Array(bins);
  const perUnit = bins / (high - low);
  for (let at = 0; at < values.length; at++) {
    const value = values[at];
    let bin = Math.min(Math.trunc((value - low) * perUnit), bins - 1);
    if (value < edges[bin]) bin -= 1;
    else if (bin < bins - 1 && value >= edges[bin + 1]) bin += 1;
    counts[bin] += 1;
  }
  const centers = new Float32Array(bins);
  let all = 0;
  for (let i = 0; i < bins; i++) {
    centers[i] = Math.fround(edges[i] + edges[i + 1]) / 2;
    all += counts[i] * centers[i];
  }
  let [below, sum, best, widest] = [0, 0, 0, 0];
  for (let i = 0; i < bins; i++) {
    below += counts[i];
    sum += counts[i] * centers[i];
    const above = values.length - below;
    const between = below * above * (sum / below - (all - sum) / above) ** 2;
    if (between > widest) [best, widest] = [i, between]; // Not a number where a group is empty.
  }
  return centers[best];
}
