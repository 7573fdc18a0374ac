"""Digits drawn with a pen of any width, and how much two images of a digit differ."""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image, ImageDraw

import mnistjax

# Polylines on a canvas of 100x100: a 2, a 4, a 7 and a 0.
DRAWINGS = (
    [(25, 30), (40, 12), (62, 15), (65, 38), (28, 85), (72, 82)],
    [(35, 12), (25, 55), (75, 52), (62, 30), (60, 90)],
    [(25, 15), (72, 15), (45, 88)],
    [(50, 10), (28, 30), (27, 65), (48, 90), (70, 70), (72, 30), (50, 10)],
)


def drawn(which=0, *, scale=2, width=8, margins=(20, 20, 20, 20)) -> np.ndarray:
    """A digit, 1 on 0, float [H, W]; margins are top, bottom, left, right in the canvas's unit."""
    top, bottom, left, right = margins
    image = Image.new("L", ((100 + left + right) * scale, (100 + top + bottom) * scale))
    points = [((x + left) * scale, (y + top) * scale) for x, y in DRAWINGS[which]]
    ImageDraw.Draw(image).line(points, 255, width * scale, joint="curve")
    return np.asarray(image) / 255.0


def prepared(gray) -> np.ndarray:
    return mnistjax.reading.prepare_digit(np.asarray(gray, np.float32)).image.astype(float) / 255


def difference(one, other) -> float:
    """How much ink of two images lies apart, as a share of all; a pixel off is no difference."""
    moves = itertools.product((-1, 0, 1), repeat=2)
    moved = (np.roll(one, move, axis=(0, 1)) for move in moves)
    return min(float(np.abs(image - other).sum() / (image + other).sum()) for image in moved)


REFERENCE = prepared(drawn())


def color_image(paper, pen) -> Image.Image:
    plane = drawn()[..., None]
    return Image.fromarray(
        np.uint8(np.round(np.array(paper) * (1 - plane) + np.array(pen) * plane))
    )
