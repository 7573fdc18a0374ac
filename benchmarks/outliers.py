"""Trains the small network that tells digits from other shapes, and writes its weights.

    python benchmarks/outliers.py --fonts /usr/share/fonts/truetype/liberation/*.ttf

The network, `mnistjax.reading.strangers`, has eleven classes: the digits, and everything else. It
learns from MNIST's training images, as they are and redrawn, and from shapes that are made up:
letters of fonts, random strokes, digits turned, mirrored, glued, crossed and crossed out, and
specks of noise. Outliers in training are what makes a network unsure of others (Hendrycks et al.,
2019, https://arxiv.org/abs/1812.04606). The last 5,000 training images are held out, to choose
`MIN_LIKENESS` and `SURE_LIKENESS`. Letters that, written by hand, are digits too are left out, and
so are the fonts with which the tests measure. Takes five minutes on one core.
"""

import dataclasses
import functools
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import tyro
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import mnistjax
from mnistjax.cli import one_line_errors

SIDE, HELD_OUT, NONE = 96, 5_000, 10
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "cmr10", "cmss10", "cmmi10")
LETTERS = "".join(sorted({*string.ascii_letters} - {*"OoIliZzSsBbgqD"}))
SIGNS = "+#@&%$?<>{}*=~^"
SHAPES = ((5, 5, 1, 24), (3, 3, 24, 32), (800, 64), (64, NONE + 1))  # Of the kernels.
Random = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to train with."""

    fonts: tuple[Path, ...] = ()
    """Font files, in addition to some of Matplotlib's."""
    shapes: int = 42_000
    """Number of shapes that are no digits."""
    redrawn: int = 20_000
    """Number of redrawn digits."""
    epochs: int = 10
    """Passes over all images."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    output: Path = Path("mnistjax/reading/strangers.npz")
    """File to write."""


def letter(fonts: list[Path], rng: Random) -> np.ndarray:
    """Returns a letter or a sign of a font, float [SIDE, SIDE]."""
    signs = rng.random() < 0.15
    text = str(rng.choice([*(SIGNS if signs else LETTERS)]))
    file = fonts[rng.integers(len(fonts))]
    canvas = Image.new("F", (SIDE, SIDE))
    middle = (SIDE / 2, SIDE / 2)
    ImageDraw.Draw(canvas).text(middle, text, 1.0, ImageFont.truetype(file, 64), anchor="mm")
    return np.asarray(canvas)


def strokes(rng: Random) -> np.ndarray:
    """Returns one to five random strokes: curves, polygons, arcs and straight lines."""
    canvas = Image.new("F", (SIDE, SIDE))
    width = int(rng.integers(4, 9))
    for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 5])):
        draw, kind = ImageDraw.Draw(canvas), rng.random()
        low, high = SIDE * rng.uniform(0.1, 0.4, 2), SIDE * rng.uniform(0.6, 0.9, 2)
        if kind < 0.2:
            start = rng.uniform(0, 360)
            stop = start + rng.choice([360, rng.uniform(120, 300)])
            draw.arc((*low, *high), start, stop, 1, width)
        elif kind < 0.3:
            draw.rectangle((*low, *high), outline=1, width=width)
        else:
            points = SIDE * rng.uniform(0.12, 0.88, (rng.integers(2, 12), 2))
            if len(points) > 3 and rng.random() < 0.7:
                points = ndimage.zoom(points, (8, 1), order=3)
            draw.line([tuple(point) for point in points], 1, width, joint="curve")
    return np.asarray(canvas)


def specks(rng: Random) -> np.ndarray:
    """Returns noise of one grain."""
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), rng.uniform(0.8, 6))
    return (noise > np.quantile(noise, rng.uniform(0.7, 0.99))).astype(np.float32)


def large(image: np.ndarray) -> np.ndarray:
    """Returns a digit uint8 [28, 28] as float [SIDE, SIDE]."""
    return np.pad(np.kron(image / 255.0, np.ones((3, 3))), (SIDE - 84) // 2)


def changed_digit(images: np.ndarray, labels: np.ndarray, rng: Random) -> np.ndarray:
    """Returns a digit that is turned, mirrored, joined with another, or crossed out."""
    while True:
        first, second = rng.integers(len(images), size=2)
        digit, label, other = large(images[first]), int(labels[first]), large(images[second])
        way = rng.integers(6)
        if way == 0 and label != 0:
            return np.rot90(digit, rng.choice([1, 3]))
        if way == 1 and label in {3, 4, 7}:
            return np.rot90(digit, 2)
        if way == 2 and label in {3, 4, 6, 7, 9}:
            return digit[:, ::-1]
        if way == 3:
            offset = rng.integers(9, 24, 2) * rng.choice([-1, 1], 2)
            return np.maximum(digit, np.roll(other, offset, (0, 1)))
        if way == 4:
            pair = np.concatenate([digit[:, 15:72], other[:, 24:]], 1)
            pair = ndimage.zoom(pair, 0.65, order=1)[:, : SIDE - 8]
            gaps = [SIDE - size for size in pair.shape]
            return np.pad(pair, [(gap // 2, gap - gap // 2) for gap in gaps])
        if way == 5:
            return np.maximum(digit, strokes(rng))


def redraw(ink: np.ndarray, rng: Random) -> np.ndarray:
    """Draws ink again with a pen and a hand of its own, and prepares it as a picture is prepared.

    Args:
        ink: float [SIDE, SIDE].
        rng: the source of chance.

    Returns:
        uint8 [28, 28, 1].
    """
    angle, slant = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, 0], [slant, 1]]) @ np.diag([1, np.exp(rng.uniform(-0.2, 0.2))])
    middle = SIDE / 2
    places = np.tensordot(matrix, np.indices(ink.shape) - middle, 1) + middle
    waves = ndimage.zoom(rng.normal(0, 1, (2, 6, 6)), (1, SIDE / 6, SIDE / 6), order=1)
    places = places + rng.uniform(0, 2.5) * waves
    moved = ndimage.map_coordinates(ink, places, order=1)
    rough = rng.uniform(0, 0.4) * rng.normal(0, 1, ink.shape)
    mask = ndimage.gaussian_filter(moved + rough, rng.uniform(0.7, 1.5)) > rng.uniform(0.3, 0.5)
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    mask = np.isin(pieces, 1 + np.flatnonzero(sizes >= 0.05 * sizes.max()))
    if not count or mask.sum() < 20:
        mask = ink > 0
    thicker = rng.uniform(-2, 2)
    if thicker > 0:
        mask = ndimage.distance_transform_edt(~mask) <= thicker
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cropped = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    prepare = mnistjax.reading.mnist_format
    return prepare.to_mnist(prepare.normalize_strokes(cropped))


def redraw_all(images: np.ndarray, seed: int) -> np.ndarray:
    """Redraws digits uint8 [N, 28, 28, 1]; the result has the same shape and dtype."""
    sources = [np.random.default_rng((seed, index)) for index in range(len(images))]
    inks = [large(image[..., 0]) for image in images]
    return np.stack([redraw(ink, rng) for ink, rng in zip(inks, sources, strict=True)])


def make_shapes(
    count: int, images: np.ndarray, labels: np.ndarray, fonts: list[Path]
) -> np.ndarray:
    """Returns `count` shapes that are no digits, uint8 [count, 28, 28, 1]."""
    makers: list[Callable[[Random], np.ndarray]] = [
        *[functools.partial(letter, fonts)] * 9,
        *[strokes] * 5,
        *[functools.partial(changed_digit, images, labels)] * 5,
        specks,
    ]
    shapes = []
    for index in range(count):
        rng = np.random.default_rng((1, index))
        shapes.append(redraw(makers[index % len(makers)](rng), rng))
    return np.stack(shapes)


def init(key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """Returns the weights for images of this shape."""
    initialize, params = jax.nn.initializers.he_normal(), {}
    for index, shape in enumerate(SHAPES):
        params[f"kernel{index}"] = initialize(jax.random.fold_in(key, index), shape)
        params[f"bias{index}"] = jnp.zeros(shape[-1])
    return {"params": params, "batch_stats": {}}


def apply(variables: dict[str, Any], images: jax.Array, **_: Any) -> tuple[jax.Array, dict]:
    """Returns the logits, float [N, 11]."""
    params, x = variables["params"], images
    for index, shape in enumerate(SHAPES):
        kernel, bias = params[f"kernel{index}"], params[f"bias{index}"]
        if len(shape) == 4:
            x = mnistjax.ops.conv_pool(x, kernel, padding="VALID")
        else:
            x = x.reshape(len(x), -1) @ kernel
        x = x + bias.reshape((1,) * (x.ndim - 1) + (-1,))
        x = jax.nn.relu(x) if index + 1 < len(SHAPES) else x
    return x, {}


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> dict[str, Any]:
    """Trains the network and returns its variables."""
    batch, key = 128, jax.random.key(0)
    steps = epochs * (len(images) // batch + 1)
    model = mnistjax.Model(init, apply, "strangers")
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-3)
    augment = functools.partial(mnistjax.data.random_shift, pixels=1)
    state = mnistjax.create_train_state(model, optimizer, jnp.zeros((1, 28, 28, 1)), key=key)
    step = mnistjax.make_train_step(model, optimizer, augment=augment)
    train_epoch = jax.jit(mnistjax.make_epoch_fn(step), donate_argnums=0)
    pixels, classes = jnp.asarray(images), jnp.asarray(labels)
    for epoch in range(epochs):
        order = mnistjax.epoch_order(key, epoch, len(images), batch)
        metrics = mnistjax.Metrics.empty(NONE + 1)
        state, metrics = train_epoch(state, metrics, pixels, classes, order, 0, len(order))
        print(f"epoch {epoch + 1}: accuracy {metrics.summary()['accuracy']:.2%}", flush=True)
    return state.variables


def print_likelihoods(variables: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> None:
    """Prints how likely the network finds the digits that the images show."""
    logits = apply(variables, jnp.asarray(images / np.float32(255)))[0]
    own = np.asarray(jax.nn.softmax(logits))[np.arange(len(labels)), labels]
    shares = (0.005, 0.01, 0.02, 0.03, 0.05)
    print({share: float(np.quantile(own, share).round(4)) for share in shares})


@one_line_errors
def main(arguments: Arguments) -> None:
    """Makes the images, trains, prints what to choose the limits from, and writes the file."""
    split = mnistjax.load_dataset("mnist", data_dir=arguments.data_dir).train
    images, labels = split.images[:-HELD_OUT], split.labels[:-HELD_OUT]
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = [*(folder / f"{name}.ttf" for name in FONTS), *arguments.fonts]
    shapes = make_shapes(arguments.shapes, images[..., 0], labels, fonts)
    redrawn = redraw_all(images[: arguments.redrawn], 2)
    variables = train(
        np.concatenate([images, redrawn, shapes]),
        np.concatenate([labels, labels[: len(redrawn)], np.full(len(shapes), NONE, np.int32)]),
        arguments.epochs,
    )
    weights: dict[str, Any] = {
        name: np.asarray(value, np.float16) for name, value in variables["params"].items()
    }
    np.savez_compressed(arguments.output, **weights)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    held_out, digits = split.images[-HELD_OUT:], split.labels[-HELD_OUT:]
    print_likelihoods(variables, held_out, digits)
    print_likelihoods(variables, redraw_all(held_out[:2_500], 3), digits[:2_500])


if __name__ == "__main__":
    main(tyro.cli(Arguments))
