// Planes: { height, width, data }, numbers row by row. These are the operations of NumPy, SciPy and
// Pillow that `mnistjax.reading` uses, with the same roundings, so that both prepare the same
// image.

// Rounds halves to the even neighbor, as Python does. The result is an int32 (`| 0`): sizes and
// places that are floating-point numbers make the loops over planes take twice as long.
function roundEven(value) {
  const rounded = Math.round(value) | 0;
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const FILTERS = {
  box: { support: 0.5, weigh: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bicubic: {
    support: 2,
    weigh: (offset) => {
      const x = Math.abs(offset);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
};

// Returns, for each place of the result, the first place that it is made of, and their weights.
function resizingWeights(before, after, { support, weigh }) {
  const scale = before / after;
  const stretch = Math.max(scale, 1);
  const places = [];
  for (let i = 0; i < after; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, (center - support * stretch + 0.5) | 0);
    const end = Math.min(before, (center + support * stretch + 0.5) | 0);
    const weights = [];
    for (let x = first; x < end; x++) weights.push(weigh((x - center + 0.5) * (1 / stretch)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    places.push({ first, weights: weights.map((weight) => weight / sum) });
  }
  return places;
}

// Resizes a plane: to shrink it by averaging, to enlarge it by bicubic interpolation. One of that
// size is returned as it is.
function resize(plane, height, width) {
  const filter = height > plane.height ? FILTERS.bicubic : FILTERS.box;
  let { data } = plane;
  if (width !== plane.width) {
    const places = resizingWeights(plane.width, width, filter);
    data = resizeLines(data, places, plane.height, plane.width, 1, width);
  }
  if (height !== plane.height) {
    const places = resizingWeights(plane.height, height, filter);
    data = resizeLines(data, places, width, 1, width, width);
  }
  return { height, width, data };
}

// Resizes `lines` lines, which begin `apart` numbers apart; along one, numbers are `step` apart.
function resizeLines(data, places, lines, apart, step, width) {
  const result = new Float32Array(lines * places.length);
  const apartAfter = step === 1 ? width : 1;
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < places.length; i++) {
      const { first, weights } = places[i];
      const from = line * apart + first * step;
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += data[from + j * step] * weights[j];
      result[line * apartAfter + i * step] = sum;
    }
  }
  return result;
}

// Returns a plane of the size of another one: 1 at the places for which `test` holds, else 0.
function maskOf({ height, width }, test) {
  const data = new Uint8Array(height * width);
  for (let at = 0; at < data.length; at++) data[at] = test(at) ? 1 : 0;
  return { height, width, data };
}

function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < values.length; at++) {
    if (values[at] < low) low = values[at];
    if (values[at] > high) high = values[at];
  }
  return [low, high];
}

function fitSize({ height, width }, longest) {
  const factor = longest / Math.max(height, width);
  return [height, width].map((side) => Math.max(1, roundEven(side * factor)));
}

function cut({ width, data }, { top, left, bottom, right }) {
  const result = new data.constructor((bottom - top) * (right - left));
  for (let row = top; row < bottom; row++) {
    const from = row * width;
    result.set(data.subarray(from + left, from + right), (row - top) * (right - left));
  }
  return { height: bottom - top, width: right - left, data: result };
}

function boundingBox({ height, width, data }) {
  const box = { top: height, left: width, bottom: 0, right: 0 };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (data[row * width + column]) extend(box, row, column);
    }
  }
  return box;
}

function extend(box, row, column) {
  if (row < box.top) box.top = row;
  if (row >= box.bottom) box.bottom = row + 1;
  if (column < box.left) box.left = column;
  if (column >= box.right) box.right = column + 1;
}

const crop = (mask) => cut(mask, boundingBox(mask));
const longSide = ({ height, width }) => Math.max(height, width);

function padded({ height, width, data }, margin) {
  const wide = width + 2 * margin;
  const result = new Uint8Array((height + 2 * margin) * wide);
  for (let row = 0; row < height; row++) {
    const line = data.subarray(row * width, (row + 1) * width);
    result.set(line, (row + margin) * wide + margin);
  }
  return { height: height + 2 * margin, width: wide, data: result };
}

// Large arrays that are used again for the next picture: to allocate them takes longer than to fill
// them.
const BUFFERS = new Map();

function bufferOf(name, length) {
  const before = BUFFERS.get(name);
  if (before?.length >= length) return before;
  const buffer = new Float32Array(length);
  BUFFERS.set(name, buffer);
  return buffer;
}

// Blurs a plane with a Gaussian, cut off at four standard deviations; edges are mirrored.
function gaussianBlur({ height, width, data }, deviation) {
  const radius = (4 * deviation + 0.5) | 0;
  const weights = new Float64Array(radius + 1); // From the outermost one to the middle.
  for (let i = 0; i <= radius; i++) {
    weights[i] = Math.exp((-0.5 / deviation ** 2) * (i - radius) ** 2);
  }
  const sum = 2 * weights.reduce((total, weight) => total + weight, 0) - 1;
  for (let i = 0; i <= radius; i++) weights[i] /= sum;

  const tall = bufferOf("tall", (height + 2 * radius) * width + 4);
  for (let row = 0; row < height + 2 * radius; row++) {
    const from = mirror(row - radius, height) * width;
    tall.set(data.subarray(from, from + width), row * width);
  }
  const once = bufferOf("once", height * width + 4);
  addNeighbors(tall, once, height * width, width, weights);
  const line = width + 2 * radius;
  const wide = bufferOf("wide", height * line + 2 * radius + 4);
  for (let row = 0; row < height; row++) {
    const [from, to] = [row * width, row * line + radius];
    wide.set(once.subarray(from, from + width), to);
    for (let i = -radius; i < 0; i++) wide[to + i] = once[from + mirror(i, width)];
    for (let i = width; i < width + radius; i++) wide[to + i] = once[from + mirror(i, width)];
  }
  const twice = bufferOf("twice", height * line + 4);
  addNeighbors(wide, twice, height * line, 1, weights);
  const plane = { height, width: line, data: twice };
  return cut(plane, { top: 0, left: 0, bottom: height, right: width });
}

// Fills in `count` sums of numbers, of those before and after each, `step` apart, weighed. The first
// sum begins with the first number. Four at a time, so that sums stay in registers; `| 0` keeps
// places integers of 32 bits, which takes half the time.
function addNeighbors(numbers, result, count, step, weights) {
  const radius = weights.length - 1;
  const middle = weights[radius];
  const far = (radius * step) | 0;
  const near = step | 0;
  for (let at = 0; at < count; at = (at + 4) | 0) {
    const center = (at + far) | 0;
    let a = numbers[center] * middle;
    let b = numbers[center + 1] * middle;
    let c = numbers[center + 2] * middle;
    let d = numbers[center + 3] * middle;
    let before = at;
    let after = (center + far) | 0;
    for (let i = 0; i < radius; i++) {
      const weight = weights[i];
      a += (numbers[before] + numbers[after]) * weight;
      b += (numbers[before + 1] + numbers[after + 1]) * weight;
      c += (numbers[before + 2] + numbers[after + 2]) * weight;
      d += (numbers[before + 3] + numbers[after + 3]) * weight;
      before = (before + near) | 0;
      after = (after - near) | 0;
    }
    result[at] = a;
    result[at + 1] = b;
    result[at + 2] = c;
    result[at + 3] = d;
  }
}

// The place, from 0 to size - 1, that a place beyond the edges shows.
function mirror(place, size) {
  const within = ((place % (2 * size)) + 2 * size) % (2 * size);
  return within < size ? within : 2 * size - 1 - within;
}

function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// Returns, for each pixel that is set, the distance to the nearest pixel that is not, at most
// `reach`; there has to be one.
function distances({ height, width, data }, reach = height + width) {
  const near = new Int32Array(data.length); // The distance within the column.
  for (let at = 0; at < data.length; at++) {
    if (data[at]) near[at] = at < width ? reach : Math.min(near[at - width] + 1, reach);
  }
  for (let at = data.length - width - 1; at >= 0; at--) {
    near[at] = Math.min(near[at], near[at + width] + 1);
  }
  const result = new Float64Array(data.length);
  for (let at = 0; at < data.length; at++) {
    if (!data[at]) continue;
    const column = at % width;
    const last = width - 1 - column;
    let best = near[at] * near[at];
    for (let away = 1; away * away < best; away++) {
      const square = away * away;
      if (away <= column) best = Math.min(best, near[at - away] * near[at - away] + square);
      if (away <= last) best = Math.min(best, near[at + away] * near[at + away] + square);
    }
    result[at] = Math.sqrt(best);
  }
  return { height, width, data: result };
}

// Returns the parts of a mask whose pixels touch, at least at corners: pixels and box of each.
function findComponents({ height, width, data }) {
  const seen = new Uint8Array(data.length);
  const all = new Int32Array(data.length);
  const components = [];
  let end = 0;
  for (let start = 0; start < data.length; start++) {
    if (!data[start] || seen[start]) continue;
    const first = end;
    const box = { top: height, left: width, bottom: 0, right: 0 };
    seen[start] = 1;
    all[end++] = start;
    for (let i = first; i < end; i++) {
      const row = (all[i] / width) | 0;
      const column = all[i] - row * width;
      extend(box, row, column);
      const left = column > 0 ? -1 : 0;
      const right = column < width - 1 ? 1 : 0;
      const last = row < height - 1 ? all[i] + width : all[i];
      for (let middle = row > 0 ? all[i] - width : all[i]; middle <= last; middle += width) {
        for (let at = middle + left; at <= middle + right; at++) {
          if (!data[at] || seen[at]) continue;
          seen[at] = 1;
          all[end++] = at;
        }
      }
    }
    const pixels = all.subarray(first, end);
    components.push({ pixels, box });
  }
  return components;
}
