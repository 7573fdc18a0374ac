// The sheet to draw on: strokes of a pointer or of the keyboard's pen, or a picture.

const INK = "#000";
const PAPER = "#fff";
const MAX_PICTURE_SIDE = 2048; // Larger pictures are reduced, as `mnistjax.reading` does.
const STEP = 16; // How far an arrow key moves the pen, in pixels of the sheet; with Shift a quarter.

class Pad {
  // Calls changed() when something was drawn, finished() when a stroke or anything else has
  // ended, and say(text) with what somebody who cannot see the sheet needs to know.
  constructor(canvas, cursor, { changed, finished, say }) {
    this.canvas = canvas;
    this.cursor = cursor;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.actions = { changed, finished, say };
    this.penWidth = 36;
    // Strokes { points, width }, pictures { image, gray }, and blank sheets { isImplied }.
    this.items = [];
    this.stroke = null; // The one being drawn.
    this.pointer = null;
    this.pen = { x: canvas.width / 2, y: canvas.height / 2 };
    this.listen();
    this.paint();
  }

  listen() {
    const on = (name, act) => this.canvas.addEventListener(name, (event) => act(event));
    on("pointerdown", (event) => this.pointerDown(event));
    on("pointermove", (event) => this.pointerMove(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.pointerUp(event));
    on("keydown", (event) => this.keyDown(event));
    on("blur", () => this.leave());
  }

  // The picture on the sheet, or null.
  get picture() {
    const base = this.items.findLast((item) => !item.points);
    return base?.image ? base : null;
  }

  // What is on the sheet as a plane, black 0 and white 1.
  read() {
    if (this.picture) return this.picture.gray;
    const { width, height } = this.canvas;
    return grayOf(this.context.getImageData(0, 0, width, height));
  }

  begin(point) {
    // A stroke is not added to a picture.
    if (this.picture) this.items.push({ isImplied: true });
    this.stroke = { points: [point], width: this.penWidth };
    this.items.push(this.stroke);
    this.paint();
    this.actions.changed();
  }

  extend(point) {
    const last = this.stroke.points.at(-1);
    if (last.x === point.x && last.y === point.y) return;
    this.stroke.points.push(point);
    this.paintSegment(last, point, this.stroke.width);
    this.actions.changed();
  }

  end() {
    this.stroke = null;
    this.actions.finished();
  }

  undo() {
    this.stroke = null;
    this.items.pop();
    if (this.items.at(-1)?.isImplied) this.items.pop();
    this.refresh();
  }

  clear() {
    this.stroke = null;
    const isBlank = !this.picture && !this.items.at(-1)?.points;
    if (!isBlank) this.items.push({ isImplied: false });
    this.refresh();
  }

  async open(file) {
    const image = await createImageBitmap(file);
    this.stroke = null;
    this.items.push({ image, gray: grayOfPicture(image) });
    this.refresh();
  }

  refresh() {
    this.paint();
    this.actions.changed();
    this.actions.finished();
  }

  paint() {
    const { context, canvas } = this;
    const { picture } = this;
    canvas.classList.toggle("picture", Boolean(picture));
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (picture) {
      const [height, width] = fitSize(picture.image, canvas.width);
      context.imageSmoothingEnabled = picture.image.width > SIDE;
      const [left, top] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
      context.drawImage(picture.image, left, top, width, height);
      return;
    }
    context.fillStyle = PAPER;
    context.fillRect(0, 0, canvas.width, canvas.height);
    const first = this.items.findLastIndex((item) => !item.points) + 1;
    for (const { points, width } of this.items.slice(first)) {
      points.forEach((point, i) => this.paintSegment(points[Math.max(i - 1, 0)], point, width));
    }
  }

  // One by one also when all are painted again: a path has other grays at its joints.
  paintSegment(from, to, width) {
    const { context } = this;
    context.strokeStyle = INK;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }

  // Pointers: mouse, finger and pen

  pointOf({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((clientX - box.left) * this.canvas.width) / box.width,
      y: ((clientY - box.top) * this.canvas.height) / box.height,
    };
  }

  pointerDown(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor.hidden = true;
    this.begin(this.pointOf(event));
  }

  pointerMove(event) {
    if (event.pointerId !== this.pointer || !this.stroke) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) this.extend(this.pointOf(one));
  }

  pointerUp(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    if (this.stroke) this.end();
  }

  // The keyboard

  keyDown(event) {
    const directions = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    };
    if (this.pointer !== null) return;
    const isUndo = event.key === "z" || event.key === "Z";
    if (event.altKey || ((event.ctrlKey || event.metaKey) && !isUndo)) return;
    const direction = directions[event.key];
    if (direction) this.movePen(...direction, event.shiftKey ? STEP / 4 : STEP);
    else if (event.key === " ") this.togglePen(event.repeat);
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (isUndo) this.undo();
    else return;
    event.preventDefault();
  }

  movePen(across, down, step) {
    const { canvas, pen } = this;
    pen.x = clamp(pen.x + across * step, 0, canvas.width);
    pen.y = clamp(pen.y + down * step, 0, canvas.height);
    if (this.stroke) this.extend({ ...pen });
    this.showPen();
    const across100 = Math.round((100 * pen.x) / canvas.width);
    const down100 = Math.round((100 * pen.y) / canvas.height);
    const state = this.stroke ? "down" : "up";
    this.actions.say(`pen ${state}, ${across100} across, ${down100} down`);
  }

  togglePen(isRepeat) {
    if (isRepeat) return;
    if (this.stroke) {
      this.end();
    } else {
      this.begin({ ...this.pen });
      this.actions.say("pen down");
    }
    this.showPen();
  }

  showPen() {
    const { canvas, cursor, pen } = this;
    cursor.hidden = false;
    cursor.classList.toggle("down", Boolean(this.stroke));
    cursor.style.left = `${(100 * pen.x) / canvas.width}%`;
    cursor.style.top = `${(100 * pen.y) / canvas.height}%`;
  }

  leave() {
    this.cursor.hidden = true;
    if (this.stroke && this.pointer === null) this.end();
  }
}

// The luminance of pixels, rounded to whole numbers as Pillow does.
function grayOf({ width, height, data }, ground = 1) {
  const gray = new Float32Array(width * height);
  for (let at = 0, from = 0; at < gray.length; at++, from += 4) {
    const sum = 19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2];
    const value = ((sum + 32768) >> 16) / 255;
    const alpha = data[from + 3];
    gray[at] = alpha === 255 ? value : ground + (value - ground) * (alpha / 255);
  }
  return { height, width, data: gray };
}

function grayOfPicture(image) {
  const canvas = document.createElement("canvas");
  const longest = Math.min(MAX_PICTURE_SIDE, longSide(image));
  [canvas.height, canvas.width] = fitSize(image, longest);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  return grayOf(pixels, groundUnder(pixels));
}

// The paper behind transparent pixels: black or white, whichever differs more from the others.
function groundUnder({ data }) {
  let [count, sum] = [0, 0];
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 128) continue;
    count += 1;
    sum += data[at] + data[at + 1] + data[at + 2];
  }
  return sum > 1.5 * 255 * count ? 0 : 1;
}
