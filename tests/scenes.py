"""Photographs of ink in many surroundings, made up: what strangers' pictures look like.

A scene is paper (or a board, a screen) with ink on it, what lies beside it, and light that falls on
both. `degraded.py` varies pens, papers and files; this module varies what else is in the picture.
Every picture follows from a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from degraded import RowStyle, reopened, row_ink, stroke_mask
from PIL import Image, ImageDraw
from scipy import ndimage

Chance = np.random.Generator


def surface(shape: tuple[int, int], kind: str, scale: float, rng: Chance) -> np.ndarray:
    """Draws a table: wood with its grain, cloth with its weave, or a plain dark or colored top.

    Args:
        shape: height and width in pixels.
        kind: "wood", "cloth", "dark" or "plain".
        scale: height of a digit in pixels; the texture goes with it.
        rng: the source of chance.

    Returns:
        float [H, W, 3] in [0, 1].
    """
    if kind == "wood":
        color = np.array([0.55, 0.38, 0.22]) * rng.uniform(0.5, 1.4)
        along = ndimage.gaussian_filter(rng.normal(size=shape), (0.015 * scale, 0.6 * scale))
        wide = ndimage.gaussian_filter(rng.normal(size=shape), (0.1 * scale, 2 * scale))
        grain = along / along.std() * rng.uniform(0.04, 0.1) + wide / wide.std() * 0.05
        if rng.random() < 0.5:
            grain = np.swapaxes(ndimage.zoom(grain, np.array(shape[::-1]) / shape, order=1), 0, 1)
        return np.clip(color * (1 + grain[..., None]), 0, 1)
    if kind == "cloth":
        color = rng.uniform(0.1, 0.8, 3)
        rows, columns = np.indices(shape)
        period = max(2.5, 0.05 * scale)
        weave = np.sin(2 * np.pi * rows / period) + np.sin(2 * np.pi * columns / period)
        noise = ndimage.gaussian_filter(rng.normal(size=shape), 1)
        return np.clip(color * (1 + 0.05 * weave + 0.15 * noise)[..., None], 0, 1)
    base = rng.uniform(0.03, 0.2) if kind == "dark" else rng.uniform(0.25, 0.75)
    color = np.clip(base + rng.normal(0, 0.05, 3), 0.02, 0.9)
    return np.clip(color + 0.01 * rng.normal(size=(*shape, 1)), 0, 1)


def write(ink: np.ndarray, paper: np.ndarray, pen: np.ndarray, density: float) -> np.ndarray:
    """Covers paper [..., 3] with ink [H, W] of a color."""
    return paper + (pen - paper) * (ink * density)[..., None]


def white_paper(ink: np.ndarray, rng: Chance, density: float = 1.0) -> np.ndarray:
    """A pen of any color on light paper, float [H, W, 3]."""
    paper = np.clip(rng.uniform(0.75, 0.98) + rng.normal(0, 0.02, 3), 0, 1)
    pen = np.clip(rng.uniform(0.03, 0.25) + rng.normal(0, 0.03, 3), 0, 1)
    if rng.random() < 0.4:
        pen = np.array([0.08, 0.12, 0.5]) + rng.normal(0, 0.03, 3)
    return write(ink, paper, pen, density * rng.uniform(0.85, 1))


def beside(
    sheet: np.ndarray, scale: float, rng: Chance, sides: np.ndarray, kinds: tuple[str, ...]
) -> np.ndarray:
    """Lays a sheet on a table, which is seen at the given sides: top, bottom, left, right."""
    margins = (sides * rng.uniform(0.15, 1.0, 4) * scale).astype(int)
    around = ((margins[0], margins[1]), (margins[2], margins[3]))
    shape = tuple(size + sum(pad) for size, pad in zip(sheet.shape[:2], around, strict=True))
    table = surface(shape, str(rng.choice(kinds)), scale, rng)
    # The edges are not parallel to those of the picture.
    low = np.array([margins[2], margins[0]])
    high = low + sheet.shape[1::-1]
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]], float)
    outward = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners += outward * rng.uniform(-0.12, 0, (4, 2)) * scale * _seen(sides)
    corners += outward * 9 * scale * (1 - _seen(sides))
    mask = Image.new("F", shape[::-1])
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], 1)
    covered = ndimage.gaussian_filter(np.asarray(mask), 0.7)[..., None]
    if rng.random() < 0.5:  # The sheet casts a shadow on the table.
        fall = tuple(rng.uniform(-0.04, 0.04, 2) * scale)
        shade = ndimage.gaussian_filter(ndimage.shift(covered[..., 0], fall, order=1), 0.03 * scale)
        table = table * (1 - rng.uniform(0.2, 0.6) * shade[..., None])
    wide = np.pad(sheet, (*around, (0, 0)), mode="edge")
    return table + (wide - table) * covered


def _seen(sides: np.ndarray) -> np.ndarray:
    """Whether each corner (clockwise from the top left) is moved across and down, [4, 2]."""
    top, bottom, left, right = sides
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def hard_shadow(shape: tuple[int, int], rng: Chance) -> np.ndarray:
    """Light [H, W] with a shadow whose straight edge crosses the middle part of the picture."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    turn, soft = rng.uniform(0, 2 * np.pi), rng.uniform(0.002, 0.02)
    side = np.cos(turn) * rows + np.sin(turn) * columns - rng.uniform(-0.6, 0.6)
    return 1 - rng.uniform(0.25, 0.65) * np.clip(0.5 + side / (2 * soft), 0, 1)


def glare(shape: tuple[int, int], rng: Chance) -> np.ndarray:
    """Reflections of lamps and windows, float [H, W], 1 where the picture is white."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    total = np.zeros(shape)
    for _ in range(rng.integers(1, 4)):
        down, across = rows - rng.uniform(-1, 1), columns - rng.uniform(-1, 1)
        tall, wide = rng.uniform(0.12, 0.6, 2)
        if rng.random() < 0.4:  # A window.
            away = np.maximum(np.abs(down) / tall, np.abs(across) / wide)
        else:
            away = np.hypot(down / tall, across / wide)
        soft = rng.uniform(0.03, 0.5)
        patch = np.clip((1 - away) / soft + 0.5, 0, 1) * rng.uniform(0.25, 0.65)
        total = np.maximum(total, patch)
    return total


def _even(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    return white_paper(ink, rng)


def _lined(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    picture = white_paper(ink, rng)
    gap = round(rng.uniform(0.7, 1.6) * scale)
    width = max(1, round(0.02 * scale))
    rows = (np.arange(len(ink)) + rng.integers(gap)) % gap < width
    line = rows[:, None] | np.zeros(ink.shape, bool)
    if rng.random() < 0.4:  # Squared.
        line = line | ((np.arange(ink.shape[1]) + rng.integers(gap)) % gap < width)
    return picture - (line * rng.uniform(0.05, 0.2))[..., None] * np.array([1, 0.7, 0.4])


def _pencil(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    grain = ndimage.gaussian_filter(rng.normal(size=ink.shape), 0.7)
    return white_paper(ink * np.clip(0.75 + 0.4 * grain, 0, 1), rng, rng.uniform(0.35, 0.6))


def _marker(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    wide = ndimage.distance_transform_edt(ink < 0.5) <= rng.uniform(0.02, 0.05) * scale
    return white_paper(ndimage.gaussian_filter(wide.astype(float), 0.7), rng)


def _tilted(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    height, width = ink.shape
    corners = [(0, 0), (0, height), (width, height), (width, 0)]
    quad = np.ravel(corners + rng.uniform(-0.1, 0.1, (4, 2)) * (width, height))
    seen = Image.fromarray(ink.astype(np.float32)).transform(
        (width, height), Image.Transform.QUAD, tuple(quad), Image.Resampling.BILINEAR
    )
    return white_paper(np.clip(np.asarray(seen), 0, 1), rng)


def _blurred(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    deviation = rng.uniform(0.02, 0.045) * scale
    return ndimage.gaussian_filter(white_paper(ink, rng), (deviation, deviation, 0))


def _shadow(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    return white_paper(ink, rng) * hard_shadow(ink.shape, rng)[..., None]


def _table(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    sides = rng.permutation(np.arange(4) < rng.integers(1, 5))
    return beside(white_paper(ink, rng), scale, rng, sides, ("wood", "cloth", "dark", "plain"))


def _whiteboard(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    board = np.clip(rng.uniform(0.6, 0.85) + rng.normal(0, 0.02, 3), 0, 1)
    pens = ([0.05, 0.05, 0.08], [0.1, 0.15, 0.55], [0.65, 0.1, 0.12], [0.05, 0.4, 0.2])
    picture = write(ink, board, np.array(pens[rng.integers(4)]), rng.uniform(0.75, 1))
    return picture + (1 - picture) * glare(ink.shape, rng)[..., None]


def _screen(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    light, dark = rng.uniform(0.75, 0.95), rng.uniform(0.02, 0.25)
    ground, pen = (light, dark) if rng.random() < 0.6 else (dark, light)
    picture = write(ink, np.full(3, ground), np.full(3, pen), 1.0)
    rows, columns = np.indices(ink.shape)
    waves = np.zeros((*ink.shape, 3))
    for channel in range(3):
        turn, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.4) * scale
        phase = (np.cos(turn) * rows + np.sin(turn) * columns) / period
        waves[..., channel] = np.sin(2 * np.pi * phase + channel)
    common = waves[..., :1] * rng.uniform(0, 0.1)
    return picture * (1 + common + rng.uniform(0, 0.06) * waves)


def _receipt(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    sheet = white_paper(ink, rng, rng.uniform(0.55, 0.9))
    folds = ndimage.gaussian_filter(rng.normal(size=ink.shape), 0.3 * scale)
    sheet = sheet * (1 + 0.05 * folds / folds.std())[..., None]
    return beside(sheet, scale, rng, np.array([0, 0, 1, 1], bool), ("wood", "cloth", "plain"))


def _sticky_note(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    notes = ([0.95, 0.9, 0.45], [0.95, 0.6, 0.7], [0.6, 0.85, 0.95], [0.7, 0.92, 0.5])
    pen = np.clip(rng.uniform(0.05, 0.2) + rng.normal(0, 0.03, 3), 0, 1)
    sheet = write(ink, np.array(notes[rng.integers(4)]), pen, rng.uniform(0.85, 1))
    return beside(sheet, scale, rng, np.ones(4, bool), ("wood", "cloth", "dark", "plain"))


def _fingers(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    picture = white_paper(ink, rng)
    skin = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.4, 1.1)
    rows, columns = np.indices(ink.shape)
    hand = np.zeros(ink.shape)
    for _ in range(rng.integers(1, 4)):
        # A finger comes in from a side and reaches up to where the ink may begin.
        side, along = rng.integers(4), rng.uniform(0.1, 0.9)
        place = [along * ink.shape[0], along * ink.shape[1]]
        place[side % 2] = 0 if side < 2 else ink.shape[side % 2]
        long, thick = rng.uniform(0.15, 0.28) * scale, rng.uniform(0.1, 0.2) * scale
        sizes = (long, thick) if side % 2 == 0 else (thick, long)
        away = np.hypot((rows - place[0]) / sizes[0], (columns - place[1]) / sizes[1])
        hand = np.maximum(hand, np.clip((1 - away) * 12, 0, 1))
    shaded = skin * (0.8 + 0.2 * hand[..., None])
    return picture + (shaded - picture) * hand[..., None]


def _stain(ink: np.ndarray, scale: float, rng: Chance) -> np.ndarray:
    picture = white_paper(ink, rng)
    rows, columns = np.indices(ink.shape)
    for _ in range(rng.integers(1, 3)):
        middle = rng.uniform(0, 1, 2) * ink.shape
        radius, width = rng.uniform(0.4, 1.2) * scale, rng.uniform(0.02, 0.08) * scale
        away = np.hypot(rows - middle[0], columns - middle[1])
        ring = np.exp(-np.square((away - radius) / width)) * rng.uniform(0.1, 0.35)
        inside = (away < radius) * rng.uniform(0, 0.1)
        picture = picture * (1 - np.maximum(ring, inside)[..., None] * np.array([0.5, 0.75, 1]))
    return picture


Scene = Callable[[np.ndarray, float, Chance], np.ndarray]
SCENES: dict[str, Scene] = {
    "even": _even,
    "lined": _lined,
    "pencil": _pencil,
    "marker": _marker,
    "tilted": _tilted,
    "blurred": _blurred,
    "shadow": _shadow,
    "table": _table,
    "whiteboard": _whiteboard,
    "screen": _screen,
    "receipt": _receipt,
    "sticky note": _sticky_note,
    "fingers": _fingers,
    "stain": _stain,
}


def photograph_scene(kind: str, ink: np.ndarray, scale: float, rng: Chance) -> Image.Image:
    """Takes a photograph of ink in a scene.

    Args:
        kind: a key of `SCENES`.
        ink: float [H, W], 1 where ink is.
        scale: height of a digit in pixels.
        rng: the source of chance.

    Returns:
        A picture as a JPEG file has it.
    """
    picture = SCENES[kind](ink, scale, rng)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in picture.shape[:2]), indexing="ij")
    slope = rng.uniform(-0.08, 0.08, 2)
    picture = picture * (0.92 + slope[0] * rows + slope[1] * columns)[..., None]
    picture = ndimage.gaussian_filter(picture, (*[rng.uniform(0.3, 1.2)] * 2, 0))
    picture = picture + rng.uniform(0, 0.025) * rng.normal(size=picture.shape[:2])[..., None]
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    return reopened(image, "JPEG", quality=int(rng.integers(50, 96)))


def digit_scenes(kind: str, images: np.ndarray, seed: int) -> list[Image.Image]:
    """Photographs each image of a digit in a scene, 60 to 260 pixels high.

    Args:
        kind: a key of `SCENES`.
        images: uint8 [N, 28, 28, 1].
        seed: of the whole set.
    """
    pictures = []
    for index, image in enumerate(images):
        rng = np.random.default_rng((seed, index, *kind.encode()))
        height = float(np.exp(rng.uniform(np.log(60), np.log(260))))
        mask = stroke_mask(image[..., 0], height, rng)
        margins = (rng.uniform(0.3, 1.2, 4) * height).astype(int)
        ink = np.pad(mask, ((margins[0], margins[1]), (margins[2], margins[3])))
        pictures.append(photograph_scene(kind, ink, height, rng))
    return pictures


def code_scenes(
    kind: str, images: np.ndarray, labels: np.ndarray, seed: int, length: int = 5
) -> list[tuple[Image.Image, str]]:
    """Photographs codes of digits in a scene, each image used once.

    Args:
        kind: a key of `SCENES`, or "form" for even light and a box or cells around the digits.
        images: uint8 [N, 28, 28, 1].
        labels: int [N].
        seed: of the whole set.
        length: digits per code.

    Returns:
        (picture, digits as text) of each of the N // length codes.
    """
    codes = []
    for start in range(0, len(images) - length + 1, length):
        rng = np.random.default_rng((seed, start, *kind.encode()))
        height = float(np.exp(rng.uniform(np.log(50), np.log(140))))
        furniture = str(rng.choice(["box", "cells", "underline"])) if kind == "form" else ""
        style = RowStyle(furniture=furniture)
        ink = row_ink(images[start : start + length, ..., 0], height, style, rng)
        picture = photograph_scene("even" if kind == "form" else kind, ink, height, rng)
        codes.append((picture, "".join(map(str, labels[start : start + length]))))
    return codes
