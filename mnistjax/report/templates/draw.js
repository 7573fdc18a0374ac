// The page: what the network sees of the drawing, what it answers, and why.

const page = JSON.parse(document.getElementById("network").textContent);
const layers = unpackNetwork(page);
const [HEIGHT, WIDTH] = page.shape;
const RAISES = [224, 138, 20];
const LOWERS = [59, 125, 216];
const GRAY = 128;

const find = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const rows = Array.from(document.querySelectorAll("#bars button"), (button) => ({
  button,
  fill: button.querySelector(".fill"),
  share: button.querySelector(".share"),
}));
let chosen = null; // The class that is explained; if null, the most probable one.
let isAsked = false;

// What the network sees: { image, warnings }, the image as numbers from 0 to 255; or null.
function see() {
  const gray = pad.read();
  if (find("prepare")?.checked) return prepareDigit(gray);
  return hasContrast(gray) ? { image: shrinkToInput(gray), warnings: [] } : null;
}

// Makes a picture as small as the images of the network, light on dark, and nothing else. Paper is
// what most of the border shows.
function shrinkToInput(gray) {
  const factor = Math.min(HEIGHT / gray.height, WIDTH / gray.width);
  const sides = [gray.height, gray.width].map((side) => Math.max(1, roundEven(side * factor)));
  const small = resize(gray, ...sides);
  const border = borderOf(small);
  const isLight = median(small.data.filter((_, at) => border[at])) > 0.5;
  const image = new Uint8Array(HEIGHT * WIDTH);
  const [top, left] = [(HEIGHT - small.height) >> 1, (WIDTH - small.width) >> 1];
  small.data.forEach((value, at) => {
    const place = (top + Math.floor(at / small.width)) * WIDTH + left + (at % small.width);
    image[place] = roundEven(255 * clamp(isLight ? 1 - value : value, 0, 1));
  });
  return image;
}

// Runs the network on what is on the sheet, and shows everything. Returns the answer in words.
function answer() {
  isAsked = false;
  const started = performance.now();
  const seen = see();
  const pixels = new Float32Array(HEIGHT * WIDTH);
  if (seen) seen.image.forEach((value, at) => { pixels[at] = value / 255; });
  const values = runNetwork(layers, pixels);
  const probabilities = softmax(values.at(-1));
  const best = probabilities.indexOf(Math.max(...probabilities));
  const explained = chosen ?? best;
  showInput(pixels);
  showSaliency(seen ? findSaliency(layers, values, explained) : null, pixels);
  page.stages.forEach((place, i) => {
    showStage(find(`stage-${i}`), layers[place].shape, values[place + 1]);
  });
  showBars(seen ? probabilities : null, best, explained);
  const words = describeAnswer(seen, probabilities, best);
  find("time").textContent = `${(performance.now() - started).toFixed(1)} ms`;
  return words;
}

function describeAnswer(seen, probabilities, best) {
  const [name, share] = [page.names[best], probabilities[best]];
  const doubts = seen ? [...seen.warnings] : [];
  if (seen && share < 0.9) doubts.push("the network is not sure");
  const nothing = pad.picture ? "a picture of one color" : "nothing drawn yet";
  find("answer").textContent = seen ? name : "\u2013";
  find("sure").textContent = seen ? percent(share) : nothing;
  find("doubts").textContent = doubts.join("; ");
  return seen ? [`${name}, ${percent(share)}`, ...doubts].join("; ") : nothing;
}

function showBars(probabilities, best, explained) {
  rows.forEach(({ button, fill, share }, label) => {
    const probability = probabilities?.[label] ?? 0;
    fill.style.transform = `scaleX(${probability})`;
    share.textContent = probabilities ? percent(probability) : "";
    button.classList.toggle("best", Boolean(probabilities) && label === best);
    button.setAttribute("aria-pressed", String(label === chosen));
  });
  const isKnown = probabilities || chosen !== null;
  find("explained").textContent = isKnown ? page.names[explained] : "the class";
}

// Fills a canvas: draw(data) sets its bytes, red, green, blue and alpha of each pixel.
function paint(canvas, height, width, draw) {
  if (canvas.height !== height || canvas.width !== width) Object.assign(canvas, { height, width });
  const image = new ImageData(width, height);
  draw(image.data);
  // Kept in memory: a graphics card takes longer to get so few pixels than to draw them.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
}

function setGray(data, at, value) {
  const from = 4 * at;
  data[from] = data[from + 1] = data[from + 2] = 255 * value;
  data[from + 3] = 255;
}

function showInput(pixels) {
  paint(find("input"), HEIGHT, WIDTH, (data) => {
    pixels.forEach((value, at) => setGray(data, at, value));
  });
}

// The gradient in two colors, on a shadow of the image.
function showSaliency(gradient, pixels) {
  const largest = gradient ? Math.max(1e-12, ...gradient.map(Math.abs)) : 1;
  paint(find("saliency"), HEIGHT, WIDTH, (data) => {
    pixels.forEach((pixel, at) => {
      const share = gradient ? gradient[at] / largest : 0;
      const strength = Math.abs(share);
      const shadow = 0.35 * pixel * (1 - strength);
      const tone = share > 0 ? RAISES : LOWERS;
      for (let i = 0; i < 3; i++) {
        data[4 * at + i] = (strength * tone[i] + shadow * GRAY) / (strength + shadow || 1);
      }
      data[4 * at + 3] = 255 * (strength + shadow);
    });
  });
}

// Returns a number of columns near `wanted` with which few tiles are missing in the last line.
function chooseColumns(tiles, wanted) {
  let [best, least] = [tiles, Infinity];
  for (let columns = Math.ceil(0.7 * wanted); columns <= 1.7 * wanted; columns++) {
    const missing = columns * Math.ceil(tiles / columns) - tiles;
    const badness = missing + Math.abs(Math.log(columns / wanted));
    if (badness < least) [best, least] = [columns, badness];
  }
  return Math.min(best, tiles);
}

// The activations of a layer: a tile for each channel, or a pixel for each unit. The largest is
// white.
function showStage(canvas, shape, values) {
  const [height, width, channels] = shape.length === 3 ? shape : [1, 1, shape[0]];
  const gap = height > 1 ? 1 : 0;
  const columns = chooseColumns(channels, Math.sqrt((channels * 3 * height) / width));
  const across = columns * (width + gap) - gap;
  const down = Math.ceil(channels / columns) * (height + gap) - gap;
  const largest = values.reduce((most, value) => Math.max(most, value), 1e-12);
  paint(canvas, down, across, (data) => {
    for (let channel = 0; channel < channels; channel++) {
      const top = Math.floor(channel / columns) * (height + gap);
      const left = (channel % columns) * (width + gap);
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const value = values[(row * width + column) * channels + channel];
          setGray(data, (top + row) * across + left + column, Math.max(value / largest, 0));
        }
      }
    }
  });
}

// Once for each frame, however many points were drawn.
function ask() {
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => { if (isAsked) answer(); });
}

const say = (text) => { find("spoken").textContent = text; };

const pad = new Pad(find("pad"), find("pen"), { changed: ask, finished: () => say(answer()), say });

async function openPicture(file) {
  find("problem").textContent = "";
  try {
    await pad.open(file);
  } catch {
    find("problem").textContent = `expected an image, found ${file.name || "something else"}`;
  }
}

function listen() {
  find("undo").addEventListener("click", () => pad.undo());
  find("clear").addEventListener("click", () => pad.clear());
  find("width").addEventListener("input", ({ target }) => { pad.penWidth = Number(target.value); });
  find("prepare")?.addEventListener("change", () => say(answer()));
  find("file").addEventListener("change", ({ target }) => {
    if (target.files.length) openPicture(target.files[0]);
    target.value = ""; // The same file can be chosen again.
  });
  rows.forEach(({ button }, label) => button.addEventListener("click", () => {
    chosen = chosen === label ? null : label;
    answer();
  }));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) openPicture(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData.files.length) openPicture(clipboardData.files[0]);
  });
}

listen();
answer();
