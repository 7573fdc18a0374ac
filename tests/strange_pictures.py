"""Pictures of what is no digit, made up: letters, scribbles, symbols and blank paper, from a seed.

The fonts are Matplotlib's. `benchmarks/outliers.py` must not read those named here, nor draw the
scribbles as they are drawn here: they measure what it made.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from degraded import encode, photograph
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FONTS = (
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta", "DejaVuSerif"),
    *("DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSansMono", "DejaVuSansMono-Oblique"),
    *("cmtt10", "cmti10"),
)
ALIKE = frozenset("OoIliZzSsBbgqD")
"""Letters that, written by hand, are digits as well."""
SYMBOLS = "+#@&%$?<>{}*=~^"
SIZE = 160


def letter_ink(letter: str, font: str, rng: np.random.Generator) -> np.ndarray:
    """Writes one letter slanted, turned, narrow or wide, thin or thick, with a shaking hand.

    Args:
        letter: the letter.
        font: one of `FONTS`.
        rng: the source of chance.

    Returns:
        bool [h, w], True where ink is, cropped.
    """
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    canvas = Image.new("F", (2 * SIZE, 2 * SIZE))
    middle = (SIZE, SIZE)
    ImageDraw.Draw(canvas).text(middle, letter, 1.0, ImageFont.truetype(file, SIZE), anchor="mm")
    return shaken(np.asarray(canvas) > 0.5, rng)


def shaken(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slants, turns and stretches ink, distorts it elastically, and changes its thickness.

    Args:
        ink: bool [2 * SIZE, 2 * SIZE].
        rng: the source of chance.

    Returns:
        bool [h, w], cropped.
    """
    angle, slant = rng.uniform(-0.17, 0.17), rng.uniform(-0.3, 0.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([1, np.exp(rng.uniform(-0.25, 0.25))])
    matrix = turn @ np.array([[1, 0], [slant, 1]]) @ stretch
    grid = np.indices(ink.shape) - SIZE
    waves = [ndimage.zoom(rng.normal(0, 1, (8, 8)), len(ink) / 8, order=3) for _ in range(2)]
    places = np.tensordot(matrix, grid, 1) + SIZE + rng.uniform(1, 6) * np.array(waves)
    moved = ndimage.map_coordinates(ink.astype(np.float32), places, order=1) > 0.5
    change = rng.uniform(-3, 6)
    if change > 0:
        moved = ndimage.distance_transform_edt(~moved) <= change
    else:
        thinner = ndimage.distance_transform_edt(moved) > -change
        moved = thinner if thinner.sum() > 0.5 * moved.sum() else moved
    return cropped(moved)


def cropped(ink: np.ndarray) -> np.ndarray:
    """Cuts off the rows and columns at the edges that have no ink."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def spline(points: np.ndarray) -> np.ndarray:
    """A smooth line through points [N, 2]: float [16 (N - 1), 2]."""
    return ndimage.zoom(points, (16 * (len(points) - 1) / len(points), 1), order=3)


def scribbled(rng: np.random.Generator) -> list[np.ndarray]:
    return [spline(rng.uniform(0, 1, (rng.integers(7, 14), 2)))]


def spiral(rng: np.random.Generator) -> list[np.ndarray]:
    angle = np.linspace(0, rng.uniform(2.3, 4) * 2 * np.pi, 300)
    radius = np.linspace(0.05, 0.5, 300)
    turned = angle * rng.choice([-1, 1]) + rng.uniform(0, 2 * np.pi)
    return [np.stack([radius * np.cos(turned), radius * np.sin(turned)], 1)]


def zigzag(rng: np.random.Generator) -> list[np.ndarray]:
    count = rng.integers(6, 12)
    across = np.where(np.arange(count) % 2, 0.0, rng.uniform(0.4, 1))
    points = np.stack([np.linspace(0, 1, count), across], 1)
    return [points[:, ::-1] if rng.random() < 0.5 else points]


def hatching(rng: np.random.Generator) -> list[np.ndarray]:
    at, lean = np.linspace(0.1, 0.9, rng.integers(2, 5)), rng.uniform(-0.2, 0.2)
    one = [np.array([[0, x], [1, x + lean]]) for x in at]
    return one + [line[:, ::-1] for line in one]


def crossing(rng: np.random.Generator) -> list[np.ndarray]:
    lines = [np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])]
    star = [np.array([[0.5, -0.1], [0.5, 1.1]])] if rng.random() < 0.5 else []
    return [line + rng.normal(0, 0.06, (2, 2)) for line in lines + star]


def box(rng: np.random.Generator) -> list[np.ndarray]:
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0.0]]) * [1, rng.uniform(0.7, 1.4)]
    lines = [corners + rng.normal(0, 0.03, (5, 2))]
    return lines + crossing(rng) if rng.random() < 0.5 else lines


def crossed_circle(rng: np.random.Generator) -> list[np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 80)
    circle = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return [circle, *crossing(rng)[:2]]


def check_mark(rng: np.random.Generator) -> list[np.ndarray]:
    points = np.array([[0.55, 0.0], [1.0, 0.35], [0.0, 1.0]])
    return [points + rng.normal(0, 0.04, (3, 2))]


SCRIBBLES: tuple[Callable[[np.random.Generator], list[np.ndarray]], ...] = (
    *(scribbled, spiral, zigzag, hatching, crossing, box, crossed_circle, check_mark),
)


def line_ink(lines: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws lines with a pen, with a shaking hand.

    Args:
        lines: of each line the points [N, 2], about 0 to 1.
        rng: the source of chance.

    Returns:
        bool [h, w], cropped.
    """
    canvas = Image.new("F", (2 * SIZE, 2 * SIZE))
    points = np.concatenate(lines)
    low, unit = points.min(0), 0.9 * SIZE / np.ptp(points, axis=0).max()
    width = round(SIZE * rng.uniform(0.06, 0.14))
    for line in lines:
        path = (line - low) * unit + 0.55 * SIZE
        ImageDraw.Draw(canvas).line([tuple(p[::-1]) for p in path], 1, width, joint="curve")
    return shaken(np.asarray(canvas) > 0.5, rng)


def blank_ink(rng: np.random.Generator) -> np.ndarray:
    """Paper without ink."""
    return np.zeros(rng.integers(60, 400, 2), bool)


def photographed(ink: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Makes a photograph of ink, as `degraded` makes it of a digit, 40 to 240 pixels high."""
    height = float(np.exp(rng.uniform(np.log(40), np.log(240))))
    if ink.any():
        scale = height / max(ink.shape)
        size = [max(3, round(scale * side)) for side in ink.shape[::-1]]
        way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        drawn = Image.fromarray(ink.astype(np.float32)).resize(size, way)
        margins = (rng.uniform(0.03, 0.8, (2, 2)) * max(size)).astype(int) + 2
        ink = np.pad(np.clip(np.asarray(drawn), 0, 1), margins)
    else:
        ink = ink.astype(np.float32)
    picture = photograph(ink, rng, light_on_dark=rng.random() < 0.4, scale=max(ink.shape) / 2)
    return encode(picture, rng)


def letters(seed: int, characters: str = string.ascii_letters) -> list[Image.Image]:
    """A photograph of each character, in a font drawn by chance."""
    pictures = []
    for index, letter in enumerate(characters):
        rng = np.random.default_rng((seed, index))
        pictures.append(photographed(letter_ink(letter, str(rng.choice(FONTS)), rng), rng))
    return pictures


def scribbles(count: int, seed: int) -> list[Image.Image]:
    """Photographs of scribbles, of each kind in turn."""
    pictures = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        lines = SCRIBBLES[index % len(SCRIBBLES)](rng)
        pictures.append(photographed(line_ink(lines, rng), rng))
    return pictures


def blank_papers(count: int, seed: int) -> list[Image.Image]:
    """Photographs of paper, with its noise, dirt, slopes of light and shadows."""
    sources = [np.random.default_rng((seed, index)) for index in range(count)]
    return [photographed(blank_ink(rng), rng) for rng in sources]
