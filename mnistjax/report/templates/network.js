"use strict";
// The network: one image at a time, through plain layers.
//
// Images and their features are Float32Arrays in the order row, column, channel. A layer is an
// object with the fields of `mnistjax.export`: its kind, its name, the shape of its result and,
// where it has them, its weights. `in` is the shape of what it gets.

// Weights: base64 of little-endian numbers. Of int8, each output channel has a scale.

function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function halfToNumber(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent
    ? (1024 + fraction) * 2 ** (exponent - 25)
    : fraction * 2 ** -24; // Numbers too small for a leading one.
  return bits & 0x8000 ? -size : size;
}

function unpack({ dtype, data, scale }) {
  const { buffer } = bytesOf(data);
  if (dtype === "float32") return new Float32Array(buffer);
  if (dtype === "float16") return Float32Array.from(new Uint16Array(buffer), halfToNumber);
  const scales = new Float32Array(bytesOf(scale).buffer);
  return Float32Array.from(new Int8Array(buffer), (level, i) => level * scales[i % scales.length]);
}

function unpackNetwork({ shape, layers }) {
  let before = shape;
  return layers.map((packed) => {
    const layer = { ...packed, in: before };
    if (packed.kernel) {
      layer.kernel = unpack(packed.kernel);
      layer.bias = unpack(packed.bias);
    }
    before = layer.shape;
    return layer;
  });
}

// Each kind of layer: `forward` maps its input x to its output y, and `backward` the gradient with
// respect to y to the gradient with respect to x. Most features are zero after a ReLU, and most
// gradients after a pooling, so both skip zeros.

const LAYERS = {
  crop: {
    forward: ({ in: [, width, channels], shape: [rows, columns], top, left }, x) => {
      const y = new Float32Array(rows * columns * channels);
      for (let row = 0; row < rows; row++) {
        const from = ((row + top) * width + left) * channels;
        y.set(x.subarray(from, from + columns * channels), row * columns * channels);
      }
      return y;
    },
    backward: ({ in: [, width, channels], shape: [rows, columns], top, left }, x, y, dy) => {
      const dx = new Float32Array(x.length);
      for (let row = 0; row < rows; row++) {
        const from = row * columns * channels;
        const to = ((row + top) * width + left) * channels;
        dx.set(dy.subarray(from, from + columns * channels), to);
      }
      return dx;
    },
  },

  conv: {
    forward: (layer, x) => {
      const [height, width, outputs] = layer.shape;
      const y = new Float32Array(height * width * outputs);
      const inputs = emptyInputs(layer.size ** 2 * layer.in[2]);
      for (let place = 0; place < height * width; place++) {
        inputs.count = 0;
        forEachWindowPixel(layer, place, (from, weights, channels) => {
          collect(inputs, x, from, channels, weights, outputs);
        });
        addInputs(layer, inputs, y, place * outputs);
      }
      return y;
    },
    backward: (layer, x, y, dy) => {
      const { kernel, shape: [height, width, outputs] } = layer;
      const dx = new Float32Array(x.length);
      const gradients = emptyInputs(outputs);
      for (let place = 0; place < height * width; place++) {
        gradients.count = 0;
        collect(gradients, dy, place * outputs, outputs, 0, 1);
        if (!gradients.count) continue;
        forEachWindowPixel(layer, place, (from, weights, channels) => {
          for (let channel = 0; channel < channels; channel++) {
            dx[from + channel] += weigh(gradients, kernel, weights + channel * outputs);
          }
        });
      }
      return dx;
    },
  },

  maxpool: {
    forward: (layer, x) => {
      const y = new Float32Array(layer.shape[0] * layer.shape[1] * layer.shape[2]).fill(-Infinity);
      forEachPooled(layer, (from, to) => {
        if (x[from] > y[to]) y[to] = x[from];
      });
      return y;
    },
    // Of equal numbers in a window, the first gets the gradient, as in `mnistjax.ops.max_pool`.
    backward: (layer, x, y, dy) => {
      const dx = new Float32Array(x.length);
      const taken = new Uint8Array(y.length);
      forEachPooled(layer, (from, to) => {
        if (taken[to] || x[from] !== y[to]) return;
        taken[to] = 1;
        dx[from] = dy[to];
      });
      return dx;
    },
  },

  relu: {
    forward: (layer, x) => x.map((value) => (value > 0 ? value : 0)),
    backward: (layer, x, y, dy) => dy.map((value, i) => (x[i] > 0 ? value : 0)),
  },

  flatten: {
    forward: (layer, x) => x,
    backward: (layer, x, y, dy) => dy,
  },

  dense: {
    forward: (layer, x) => {
      const y = new Float32Array(layer.shape[0]);
      const inputs = emptyInputs(x.length);
      collect(inputs, x, 0, x.length, 0, y.length);
      addInputs(layer, inputs, y, 0);
      return y;
    },
    backward: ({ kernel }, x, y, dy) => {
      const dx = new Float32Array(x.length);
      const gradients = emptyInputs(y.length);
      collect(gradients, dy, 0, y.length, 0, 1);
      for (let i = 0; i < x.length; i++) dx[i] = weigh(gradients, kernel, i * y.length);
      return dx;
    },
  },
};

// Numbers that are not zero, and where their weights begin.
const emptyInputs = (size) => ({
  values: new Float64Array(size), places: new Int32Array(size), count: 0,
});

function collect(inputs, x, from, length, place, step) {
  const { values, places } = inputs;
  let { count } = inputs;
  for (let i = 0; i < length; i++) {
    if (x[from + i] === 0) continue;
    values[count] = x[from + i];
    places[count++] = place + i * step;
  }
  inputs.count = count;
}

// y[at + o] = bias[o] + the sum of value * kernel[place + o], for each output o. Four at a time, so
// that their sums stay in registers: that takes half the time.
function addInputs({ kernel, bias }, { values, places, count }, y, at) {
  const outputs = bias.length;
  let o = 0;
  for (; o + 4 <= outputs; o += 4) {
    let a = bias[o];
    let b = bias[o + 1];
    let c = bias[o + 2];
    let d = bias[o + 3];
    for (let i = 0; i < count; i++) {
      const value = values[i];
      const place = places[i] + o;
      a += value * kernel[place];
      b += value * kernel[place + 1];
      c += value * kernel[place + 2];
      d += value * kernel[place + 3];
    }
    y[at + o] = a;
    y[at + o + 1] = b;
    y[at + o + 2] = c;
    y[at + o + 3] = d;
  }
  for (; o < outputs; o++) {
    let sum = bias[o];
    for (let i = 0; i < count; i++) sum += values[i] * kernel[places[i] + o];
    y[at + o] = sum;
  }
}

function weigh({ values, places, count }, kernel, row) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += values[i] * kernel[row + places[i]];
  return sum;
}

// Calls visit(place in x, place in the kernel, channels) for each pixel under the kernel, which lies
// at a place of the output; pixels of the padding are left out.
function forEachWindowPixel(layer, place, visit) {
  const { in: [height, width, channels], shape: [, columns, outputs], size, stride } = layer;
  const top = Math.floor(place / columns) * stride - layer.padding[0];
  const left = (place % columns) * stride - layer.padding[0];
  for (let i = Math.max(0, -top); i < size && top + i < height; i++) {
    for (let j = Math.max(0, -left); j < size && left + j < width; j++) {
      const from = ((top + i) * width + left + j) * channels;
      visit(from, (i * size + j) * channels * outputs, channels);
    }
  }
}

// Calls visit(place in x, place in y) for each number that is in a window of the pooling.
function forEachPooled({ in: [, width, channels], shape: [rows, columns], size }, visit) {
  for (let row = 0; row < rows * size; row++) {
    for (let column = 0; column < columns * size; column++) {
      const from = (row * width + column) * channels;
      const to = (Math.floor(row / size) * columns + Math.floor(column / size)) * channels;
      for (let channel = 0; channel < channels; channel++) visit(from + channel, to + channel);
    }
  }
}

// Returns the input and the output of every layer: what the first one gets, up to the logits.
function runNetwork(layers, pixels) {
  const values = [pixels];
  for (const layer of layers) values.push(LAYERS[layer.kind].forward(layer, values.at(-1)));
  return values;
}

// Returns the gradient of the logit of a class with respect to each pixel, as
// `mnistjax.evaluation.saliency` does.
function findSaliency(layers, values, label) {
  let gradient = new Float32Array(values.at(-1).length);
  gradient[label] = 1;
  for (let i = layers.length - 1; i >= 0; i--) {
    const { backward } = LAYERS[layers[i].kind];
    gradient = backward(layers[i], values[i], values[i + 1], gradient);
  }
  return gradient;
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
