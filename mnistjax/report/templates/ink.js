// From a picture of a digit to an image in the format of MNIST, by the steps of
// `mnistjax.reading.prepare_digit`. Names and limits are those of `mnistjax.reading`.

const SIDE = 28;
const BOX = 20;
const CENTER = 14;
const [MIN_STROKE, MAX_STROKE] = [2, 3.8];
const MIN_CONTRAST = 0.02;

// Returns { image, warnings } of a picture of one digit, or null if it has one color only. `gray` is
// a plane with black 0 and white 1, and the image has 28 x 28 numbers from 0 to 255.
function prepareDigit(gray) {
  if (!hasContrast(gray)) return null;
  if (isLikeMnist(gray)) return { image: toBytes(gray.data), warnings: [] };
  const { strokes, areas, clarity } = findStrokes(gray);
  const width = strokeWidth(strokes);
  const image = toMnist(normalizeStrokes(strokes, width));
  return { image, warnings: strokeWarnings(strokes, width, areas, clarity) };
}

function hasContrast({ data }) {
  const [low, high] = rangeOf(data);
  return high - low >= MIN_CONTRAST;
}

function toBytes(data) {
  return Uint8Array.from(data, (value) => roundEven(Math.fround(value * 255)));
}

function isLikeMnist(gray) {
  const { height, width, data } = gray;
  if (height !== SIDE || width !== SIDE) return false;
  const sum = (plane) => plane.data.reduce((total, value) => total + value, 0);
  const inner = cut(gray, { top: 2, left: 2, bottom: SIDE - 2, right: SIDE - 2 });
  const all = sum(gray);
  if (all - sum(inner) >= 0.01 * all || Math.max(...data) < 0.5 || median(data) > 0.1) return false;
  const box = boundingBox(maskOf(gray, (at) => data[at] > 0.1));
  const longest = Math.max(box.bottom - box.top, box.right - box.left);
  const offCenter = centerOfMass(gray).map((center) => Math.abs(center - CENTER));
  return Math.abs(longest - BOX) <= 2 && Math.max(...offCenter) <= 1.5;
}

function centerOfMass({ width, data }) {
  let [mass, down, across] = [0, 0, 0];
  for (let at = 0; at < data.length; at++) {
    mass += data[at];
    down += data[at] * Math.floor(at / width);
    across += data[at] * (at % width);
  }
  return [down / mass, across / mass];
}

// The strokes, cropped, the areas of their parts, and the distance between ink and paper in
// standard deviations of the paper. A digit that is small in the picture is analyzed again in a
// section around it.
function findStrokes(gray) {
  const { clarity, ...ink } = findInk(gray);
  const found = mainComponents(ink);
  const { top, left, bottom, right } = found.box;
  const size = Math.max(bottom - top, right - left);
  if (size > 0.5 * longSide(ink.mask)) return { ...found, clarity };
  const scale = longSide(gray) / longSide(ink.mask);
  const low = (start) => Math.max(0, ((start - 0.3 * size) * scale) | 0);
  const high = (stop) => (((stop - 1 + 0.3 * size) * scale) | 0) + 1;
  const section = cut(gray, {
    top: low(top),
    left: low(left),
    bottom: Math.min(high(bottom), gray.height),
    right: Math.min(high(right), gray.width),
  });
  return { ...mainComponents(findInk(section)), clarity };
}

// Removes specks, and ink that touches the edges if there is enough that does not. Returns the
// strokes that are left, cropped, their box, and the areas of their parts.
function mainComponents({ mask, strength }) {
  const components = findComponents(mask);
  const isInside = ({ top, left, bottom, right }) =>
    top > 0 && left > 0 && bottom < mask.height && right < mask.width;
  let masses = components.map(({ pixels }) => {
    let mass = 0;
    for (const at of pixels) mass += strength.data[at];
    return mass;
  });
  const inside = masses.map((mass, i) => (isInside(components[i].box) ? mass : 0));
  if (Math.max(...inside) > 0.3 * Math.max(...masses)) masses = inside;
  const most = Math.max(...masses);
  const least = Math.min(0.05 * most, most);
  const kept = components.filter((_, i) => masses[i] >= least);
  const data = new Uint8Array(mask.data.length);
  for (const { pixels } of kept) for (const at of pixels) data[at] = 1;
  const box = boundingBox({ ...mask, data });
  const areas = kept.map(({ pixels }) => pixels.length);
  return { strokes: cut({ ...mask, data }, box), box, areas };
}

// Four times the mean distance from the edge.
function strokeWidth(mask) {
  const { data } = distances(padded(mask, 1));
  let [count, sum] = [0, 0];
  for (const distance of data) {
    if (distance) count += 1;
    sum += distance;
  }
  return (4 * sum) / count;
}

// Redraws strokes that are far thinner or thicker than those of MNIST. It is done twice, because
// it changes the size of the digit and so the unit of the width.
function normalizeStrokes(strokes, widthBefore) {
  let mask = strokes;
  for (let i = 0; i < 2; i++) {
    const unit = longSide(mask) / BOX;
    const width = (i ? strokeWidth(mask) : widthBefore) / unit;
    const change = ((clamp(width, MIN_STROKE, MAX_STROKE) - width) * unit) / 2;
    if (Math.abs(change) < 0.5) break;
    mask = crop(change > 0 ? thickened(mask, change) : thinned(mask, -change));
  }
  return mask;
}

function isNear(mask, radius) {
  const others = maskOf(mask, (at) => !mask.data[at]);
  const { data } = distances(others, Math.ceil(radius) + 1);
  return maskOf(mask, (at) => data[at] <= radius);
}

const thickened = (mask, radius) => isNear(padded(mask, Math.ceil(radius) + 1), radius);

// Erodes a mask but keeps its center line, so that strokes do not break.
function thinned(mask, radius) {
  const { height, width, data } = mask;
  const box = { top: 1, left: 1, bottom: height + 1, right: width + 1 };
  const depth = cut(distances(padded(mask, 1)), box).data;
  const isRidge = (at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    for (let r = Math.max(row - 1, 0); r <= Math.min(row + 1, height - 1); r++) {
      for (let c = Math.max(column - 1, 0); c <= Math.min(column + 1, width - 1); c++) {
        if (depth[r * width + c] > depth[at]) return false;
      }
    }
    return true;
  };
  const ridge = maskOf(mask, (at) => data[at] && isRidge(at)).data;
  // Without the spurs that run into corners.
  const least = 0.5 * median(depth.filter((_, at) => ridge[at]));
  const middle = maskOf(mask, (at) => ridge[at] && depth[at] > least);
  const line = isNear(middle, ((MIN_STROKE / 2) * longSide(mask)) / BOX).data;
  return maskOf(mask, (at) => depth[at] > radius || (line[at] && data[at]));
}

// Scales strokes to a box of 20 x 20 pixels, and puts their center of mass in the middle.
function toMnist(mask) {
  const small = resize(mask, ...fitSize(mask, BOX));
  small.data = small.data.map((value) => clamp(value, 0, 1));
  const [below, beside] = centerOfMass(small);
  const top = clamp(roundEven(CENTER - below), 0, SIDE - small.height);
  const left = clamp(roundEven(CENTER - beside), 0, SIDE - small.width);
  const bytes = toBytes(small.data);
  const image = new Uint8Array(SIDE * SIDE);
  for (let row = 0; row < small.height; row++) {
    const line = bytes.subarray(row * small.width, (row + 1) * small.width);
    image.set(line, (top + row) * SIDE + left);
  }
  return image;
}

function strokeWarnings(strokes, width, areas, clarity) {
  const [, second = 0] = [...areas].sort((one, other) => other - one);
  const all = areas.reduce((sum, area) => sum + area, 0);
  const warnings = [];
  if (clarity < 4) warnings.push("hardly any contrast between ink and paper");
  if (second > 0.2 * all || areas.length > 4) warnings.push("several separate shapes");
  if ((width * BOX) / longSide(strokes) > 6.5) warnings.push("a blot rather than strokes");
  return warnings;
}
