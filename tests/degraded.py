"""Photographs of real digits, made up: paper, ink, light, lens, camera and file, all from a seed.

Each picture is encoded and opened again, so it has what a file has: JPEG's artefacts, a palette, an
alpha channel, 16 bits, an EXIF rotation.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

# EXIF's code for the turn that a viewer must make, and the turn that made the file need it.
ROTATIONS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def stroke_mask(digit: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
    """Redraws a digit with sharp edges, turned by up to 10 degrees, thinner or thicker.

    Args:
        digit: uint8 [28, 28], light on dark.
        height: of the 20 rows that the digit fills, in pixels.
        rng: the source of chance.

    Returns:
        float [h, w], 1 in the stroke, cropped to it.
    """
    factor = np.clip(height, 80, 240) / 20  # Drawn at a moderate size, and then resized.
    large = ndimage.zoom(np.pad(digit / 255.0, 4), factor, order=3, grid_mode=True, mode="nearest")
    large = ndimage.rotate(large, rng.uniform(-10, 10), order=1, reshape=False)
    mask = ndimage.gaussian_filter(large, 0.3 * factor) > 0.45
    mask = change_thickness(mask, rng.choice([0.6, 0.8, 1, 1, 1, 1, 1.3, 1.6]))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(mask.astype(np.float32))
    scale = height / 20 / factor
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.clip(np.asarray(image.resize(size, way)), 0, 1)


def change_thickness(mask: np.ndarray, factor: float) -> np.ndarray:
    """Dilates or erodes strokes so that they are `factor` times as thick.

    They never grow beyond a quarter of the digit, where its holes would close, and a line stays in
    the middle of a thin stroke: a fine pen draws the same digit.
    """
    inside = ndimage.distance_transform_edt(mask)
    radius = 2 * inside[mask].mean()  # A bar of width w is w / 4 from its edge, on average.
    if factor >= 1:
        most = np.ptp(np.flatnonzero(mask.any(1))) / 8
        grown = max(0, min(radius * factor, most) - radius)
        return ndimage.distance_transform_edt(~mask) <= grown
    ridge = mask & (inside >= ndimage.maximum_filter(inside, 3))
    line = ndimage.distance_transform_edt(~ridge) <= 0.3 * factor * radius
    return (inside > radius * (1 - factor)) | (line & mask)


def photograph(
    ink: np.ndarray, rng: np.random.Generator, *, light_on_dark: bool, scale: float
) -> np.ndarray:
    """Puts ink on paper, lights it unevenly, and takes a noisy, unsharp picture of it.

    Args:
        ink: float [H, W], 1 where ink is.
        rng: the source of chance.
        light_on_dark: chalk on a board instead of ink on paper.
        scale: size of a digit in pixels; the blur goes with it.

    Returns:
        float [H, W, 3] in [0, 1].
    """
    bright, dark = rng.uniform(0.75, 1), rng.uniform(0.02, 0.3)
    pale = np.clip(bright + rng.normal(0, 0.04, 3), 0, 1)
    deep = np.clip(dark + rng.choice([0, 0.12]) * rng.normal(0, 1, 3), 0, 0.45)
    if rng.random() < 0.2:  # A saturated pen: red, green, blue or a mixture.
        deep = rng.permutation([rng.uniform(0.5, 0.8), rng.uniform(0, 0.2), rng.uniform(0, 0.2)])
    paper, pen = (deep, pale) if light_on_dark else (pale, deep)
    coarse = ndimage.zoom(rng.normal(0, 1, (9, 9)), (ink.shape[0] / 9, ink.shape[1] / 9), order=3)
    coarse = coarse[: ink.shape[0], : ink.shape[1]]
    density = rng.uniform(0.4, 0.85) if rng.random() < 0.15 else rng.uniform(0.85, 1)
    ink = np.maximum(ink, specks(ink.shape, scale, rng))
    picture = paper + (pen - paper) * ink[..., None] * density
    picture = picture + rng.uniform(0, 0.015) * coarse[..., None]
    picture = picture * light(ink.shape, rng)[..., None]
    picture = ndimage.gaussian_filter(picture, (*[rng.uniform(0, 0.02) * scale] * 2, 0))
    noise = rng.uniform(0, 0.06)
    return np.clip(picture + noise * rng.normal(0, 1, ink.shape)[..., None], 0, 1)


def specks(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Dirt: in every fourth picture a few dots, thinner than a stroke."""
    dirt = Image.new("F", shape[::-1])
    for _ in range(rng.integers(1, 9) if rng.random() < 0.25 else 0):
        y, x = rng.uniform(0, 1, 2) * shape
        radius = rng.uniform(0.005, 0.02) * scale
        ImageDraw.Draw(dirt).ellipse((x - radius, y - radius, x + radius, y + radius), 1)
    return np.asarray(dirt)


def light(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A slope of brightness across the picture, a darker rim, and at times a shadow; at most 1."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * rows + np.sin(angle) * columns) / np.sqrt(2)
    field = 1 - rng.uniform(0, 0.3) * (1 + slope) - rng.uniform(0, 0.15) * (rows**2 + columns**2)
    if rng.random() < 0.25:  # A shadow with a soft edge across the picture.
        turn, soft = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4)
        side = np.cos(turn) * rows + np.sin(turn) * columns - rng.uniform(-0.5, 0.5)
        field = field * (1 - rng.uniform(0, 0.4) / (1 + np.exp(-side / soft)))
    return field / field.max()


def encode(picture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Saves a picture in one of many ways and opens it again.

    Args:
        picture: float [H, W, 3] in [0, 1].
        rng: the source of chance.
    """
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    way = rng.choice(["jpeg", "jpeg", "jpeg", "exif", "png", "palette", "16 bits", "webp", "cmyk"])
    if way == "exif":
        code = int(rng.choice(list(ROTATIONS)))
        exif = Image.Exif()
        exif[0x0112] = code
        turned = image.transpose(ROTATIONS[code])
        return reopened(turned, "JPEG", quality=int(rng.integers(40, 96)), exif=exif)
    if way == "palette":
        return reopened(image.convert("P", palette=Image.Palette.ADAPTIVE, colors=64), "PNG")
    if way == "16 bits":
        return reopened(Image.fromarray((picture.mean(2) * 65535).astype(np.uint16)), "PNG")
    if way == "cmyk":
        return reopened(image.convert("CMYK"), "TIFF")
    if way == "png":
        return reopened(image, "PNG")
    return reopened(image, "WEBP" if way == "webp" else "JPEG", quality=int(rng.integers(30, 96)))


def reopened(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    """Returns what a file of this format gives back."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return Image.open(buffer)


def degrade_digit(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Makes a photograph of one digit, 40 to 600 pixels high, somewhere on its paper.

    Args:
        digit: uint8 [28, 28], light on dark.
        rng: the source of chance.
    """
    height = float(np.exp(rng.uniform(np.log(40), np.log(600))))
    mask = stroke_mask(digit, height, rng)
    margins = (rng.uniform(0.03, 0.8, 4) * max(mask.shape)).astype(int)
    ink = np.pad(mask, ((margins[0], margins[1]), (margins[2], margins[3])))
    if rng.random() < 0.1:
        return transparent(ink, rng)
    picture = photograph(ink, rng, light_on_dark=rng.random() < 0.4, scale=height)
    return encode(picture, rng)


def transparent(ink: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A digit in one color on nothing, as a drawing program saves it."""
    color = rng.choice([rng.integers(0, 60, 3), rng.integers(200, 256, 3)])
    pixels = np.broadcast_to(color.astype(np.uint8), (*ink.shape, 3))
    alpha = (ink * 255).round().astype(np.uint8)
    return reopened(Image.fromarray(np.dstack([pixels, alpha])), "PNG")


def degraded_digits(images: np.ndarray, seed: int) -> list[Image.Image]:
    """Makes a photograph of each image, each from a seed of its own.

    Args:
        images: uint8 [N, 28, 28, 1].
        seed: of the whole set.
    """
    return [
        degrade_digit(image[..., 0], np.random.default_rng((seed, index)))
        for index, image in enumerate(images)
    ]


@dataclasses.dataclass(frozen=True)
class RowStyle:
    """How a row of digits is written; the defaults are those of a neat form.

    Attributes:
        gap: smallest and largest space between two digits, in heights of a digit; below zero they
            touch.
        furniture: "", "box" (one around all), "cells" (one around each) or "underline".
        skew: largest slope of the line, in degrees.
    """

    gap: tuple[float, float] = (0.1, 0.6)
    furniture: str = ""
    skew: float = 4.0


def row_ink(
    digits: np.ndarray, height: float, style: RowStyle, rng: np.random.Generator
) -> np.ndarray:
    """Writes digits side by side, with the jitter of a hand, and draws the form around them.

    Args:
        digits: uint8 [N, 28, 28].
        height: of a digit in pixels.
        style: how the row is written.
        rng: the source of chance.

    Returns:
        float [H, W], 1 where ink is, with a margin of about one digit.
    """
    masks = [stroke_mask(digit, height * rng.uniform(0.85, 1.15), rng) for digit in digits]
    gaps = rng.uniform(*style.gap, len(masks)) * height
    cells = style.furniture == "cells"
    # The digits of a form are centered in cells as wide as the widest of them.
    cell = max(mask.shape[1] for mask in masks) + 0.3 * height
    widths = [cell if cells else mask.shape[1] + gap for mask, gap in zip(masks, gaps, strict=True)]
    margin = round(height * rng.uniform(0.8, 1.4))
    ink = np.zeros((round(1.5 * height) + 2 * margin, round(sum(widths)) + 2 * margin))
    middle, left, edges = ink.shape[0] / 2, float(margin), [margin - 0.15 * height]
    for mask, width in zip(masks, widths, strict=True):
        offset = (width - mask.shape[1]) / 2 if cells else 0
        top = round(middle - mask.shape[0] / 2 + rng.uniform(-0.08, 0.08) * height)
        start = round(left + offset)
        place = ink[top : top + mask.shape[0], start : start + mask.shape[1]]
        np.maximum(place, mask[: place.shape[0], : place.shape[1]], out=place)
        left += width
        edges.append(left if cells else left - gaps[-1] + 0.15 * height)
    if cells:
        edges[0] = margin
    draw_furniture(ink, style.furniture, edges, middle, height, rng)
    angle = rng.uniform(-style.skew, style.skew)
    return np.clip(ndimage.rotate(ink, angle, order=1, reshape=True), 0, 1)


def draw_furniture(
    ink: np.ndarray,
    furniture: str,
    edges: list[float],
    middle: float,
    height: float,
    rng: np.random.Generator,
) -> None:
    """Draws the lines of a form into `ink`, around a row whose digits end at `edges`."""
    if not furniture:
        return
    canvas = Image.fromarray(ink.astype(np.float32))
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(height * rng.uniform(0.02, 0.06)))
    top, bottom = middle - 0.8 * height, middle + 0.8 * height
    left, right = edges[0], edges[-1]
    shade = rng.uniform(0.5, 1)
    if furniture == "underline":
        draw.line((left, bottom - 0.1 * height, right, bottom - 0.1 * height), shade, width)
    else:
        draw.rectangle((left, top, right, bottom), outline=shade, width=width)
    if furniture == "cells":
        for edge in edges[1:-1]:
            draw.line((edge, top, edge, bottom), shade, width)
    np.maximum(ink, np.asarray(canvas), out=ink)


FURNITURE = ("", "", "", "box", "cells", "underline")


def degrade_row(digits: np.ndarray, rng: np.random.Generator, **style: object) -> Image.Image:
    """Makes a photograph of a row of digits, 40 to 160 pixels high.

    Args:
        digits: uint8 [N, 28, 28].
        rng: the source of chance.
        **style: what `RowStyle` takes; the furniture is drawn by chance unless it is given.
    """
    height = float(np.exp(rng.uniform(np.log(40), np.log(160))))
    chosen = RowStyle(**{"furniture": str(rng.choice(FURNITURE)), **style})
    ink = row_ink(digits, height, chosen, rng)
    return encode(photograph(ink, rng, light_on_dark=rng.random() < 0.2, scale=height), rng)


def degraded_rows(
    images: np.ndarray, labels: np.ndarray, seed: int, *, length: int = 5, **style: object
) -> list[tuple[Image.Image, str]]:
    """Makes photographs of codes of `length` digits, each image used once.

    Args:
        images: uint8 [N, 28, 28, 1].
        labels: int [N].
        seed: of the whole set.
        length: digits a row.
        **style: what `degrade_row` takes.

    Returns:
        (picture, digits as text) for each of the N // length rows.
    """
    rows = []
    for start in range(0, len(images) - length + 1, length):
        digits = images[start : start + length, ..., 0]
        rng = np.random.default_rng((seed, start))
        text = "".join(str(label) for label in labels[start : start + length])
        rows.append((degrade_row(digits, rng, **style), text))
    return rows
