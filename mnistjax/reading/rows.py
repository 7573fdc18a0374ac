"""Reading the digits of a photographed row or page."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnistjax.errors import ConfigError
from mnistjax.evaluation.inference import predict_probabilities
from mnistjax.reading import ink, lines, segmentation
from mnistjax.reading.pictures import Picture, load_upright, to_grey
from mnistjax.reading.segmentation import Piece
from mnistjax.runs import TrainedModel

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE = 0.85  # In heights of a digit: a wider piece may be several digits that touch.

# What is taken off the log probability of a piece, chosen on rows of MNIST's validation digits: for
# each unit of width by height beyond WIDEST, for each height of a digit that it lacks below LOWEST,
# for each height of a digit that a cut goes through ink, and for each digit more.
WIDEST, WIDTH_COST = 0.8, 4.0
LOWEST, LOW_COST = 0.85, 10.0
CUT_COST = 6.0
SPLIT_COST = 0.3


@dataclasses.dataclass(frozen=True)
class FoundDigit:
    """A digit of a page.

    Attributes:
        label: its class.
        confidence: the probability of that class.
        box: (left, top, right, bottom) in pixels of the upright picture.
    """

    label: int
    confidence: float
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a page says.

    Attributes:
        rows: the digits, rows from top to bottom, each from left to right.
        text: the names of their classes, a line a row.
        confidence: the probability that all are right, were they independent.
    """

    rows: tuple[tuple[FoundDigit, ...], ...]
    text: str
    confidence: float


def read_digits(trained: TrainedModel, picture: Picture) -> Reading:
    """Finds and reads the digits of a photographed row or page, such as a postal code or a form.

    Lines of forms and specks are ignored, the strokes of broken digits are joined, and digits that
    touch are parted where the network is surer of the parts than of the whole. Rows may be skewed
    by a few degrees.

    Args:
        trained: the network, as `load_weights` gives it.
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        The reading; of no rows where the page has no digits.

    Raises:
        DataFormatError: the picture is missing, no image, damaged or too large.
        ConfigError: the network takes images of another shape than 28x28.
    """
    if trained.info.image_shape != (ink.SIDE, ink.SIDE, 1):
        raise ConfigError(
            f"expected a network of images (28, 28, 1), found {trained.info.image_shape}"
        )
    image = load_upright(picture)
    mask, faint = segmentation.find_ink(to_grey(image))
    scale = max(image.size) / max(mask.shape)
    rows = []
    for row in find_rows(mask, faint):
        digits = _read_row(trained, row)
        rows.append(
            tuple(
                FoundDigit(int(p.argmax()), float(p.max()), _box(piece, scale))
                for piece, p in digits
            )
        )
    names = trained.info.class_names
    text = "\n".join("".join(names[digit.label] for digit in row) for row in rows)
    confidence = float(np.prod([digit.confidence for row in rows for digit in row]))
    return Reading(tuple(rows), text, confidence)


def find_rows(mask: np.ndarray, faint: np.ndarray) -> list[list[Piece]]:
    """Finds the digits of a page; those that touch are still one.

    Args:
        mask: bool [H, W], the ink.
        faint: bool [H, W], with weaker ink too.
    """
    height = segmentation.digit_height(segmentation.find_pieces(mask))
    if not height:
        return []
    mask = lines.without_lines(mask, faint, height)
    pieces = segmentation.find_pieces(mask)
    height = segmentation.digit_height(pieces)
    return segmentation.in_rows(segmentation.join_broken(pieces, height), height)


def _box(piece: Piece, scale: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = (
        round(edge * scale) for edge in (piece.left, piece.top, piece.right, piece.bottom)
    )
    return left, top, right, bottom


def _probabilities(trained: TrainedModel, pieces: list[Piece]) -> np.ndarray:
    images = [ink.to_mnist(ink.normalise_strokes(piece.mask)) for piece in pieces]
    inputs = np.array(images, np.uint8).reshape(-1, *trained.info.image_shape)
    return predict_probabilities(trained.model, trained.variables, inputs)


def _read_row(trained: TrainedModel, row: list[Piece]) -> list[tuple[Piece, np.ndarray]]:
    """Reads the pieces of a row, each as one digit or, where that is surer, as several."""
    height = float(np.median([piece.height for piece in row]))
    choices = [_candidates(piece, height) for piece in row]
    parts = [part for _, candidates in choices for part in candidates.values()]
    probabilities = iter(_probabilities(trained, parts))
    digits = []
    for cuts, candidates in choices:
        read = {ends: (part, next(probabilities)) for ends, part in candidates.items()}
        scores = {ends: _plausibility(*found, height) for ends, found in read.items()}
        digits += [read[ends] for ends in best_path(scores, SPLIT_COST + CUT_COST * cuts)]
    return digits


def _candidates(piece: Piece, height: float) -> tuple[np.ndarray, dict[tuple[int, int], Piece]]:
    """Returns the cuts of a piece, and what between two of them may be a digit."""
    if piece.width <= WIDE * height:
        return np.zeros(2), {(0, 1): piece}
    strips = segmentation.cut_into_strips(piece, height)
    last = len(strips.cuts) - 1
    candidates = {(0, last): piece}
    for ends in itertools.combinations(range(last + 1), 2):
        part = strips.part(*ends)
        if part and part.width < 1.5 * height and part.height > 0.5 * height:
            candidates.setdefault(ends, part)
    return strips.cuts, candidates


def _plausibility(piece: Piece, probabilities: np.ndarray, height: float) -> float:
    """Scores a piece as one digit: its log probability, less what its shape makes unlikely."""
    wide = max(0.0, piece.width / piece.height - WIDEST)
    low = max(0.0, LOWEST - piece.height / height)
    sure = float(np.log(probabilities.max() + 1e-6))
    return sure - WIDTH_COST * wide - LOW_COST * low


def best_path(scores: Mapping[tuple[int, int], float], cuts: np.ndarray) -> list[tuple[int, int]]:
    """Finds the way from the first cut to the last whose steps score best in sum.

    Args:
        scores: of each step, by the two cuts that it lies between; the step from the first to the
            last is one of them.
        cuts: float [K], what each cut costs.

    Returns:
        The steps, left to right.
    """
    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])]
    for end in range(1, len(cuts)):
        ways = [
            (best[start][0] + scores[start, end] - cuts[end], [*best[start][1], (start, end)])
            for start in range(end)
            if (start, end) in scores
        ]
        best.append(max(ways, default=(-np.inf, [])))
    return best[-1][1]


def annotate(picture: Picture, reading: Reading, class_names: Sequence[str]) -> Image:
    """Draws what was read on a picture: a box around every digit, its class above.

    Boxes of digits that the network is less than 90 % sure of are orange, and their class has a
    question mark; the others are blue.

    Args:
        picture: that which `reading` is of.
        reading: what `read_digits` gave.
        class_names: the names of the classes.

    Returns:
        A `PIL.Image.Image`, RGB, upright.
    """
    from PIL import Image as Images
    from PIL import ImageDraw, ImageFont

    image = load_upright(picture)
    if image.mode not in ("L", "RGB", "RGBA", "P", "CMYK"):
        image = Images.fromarray(np.uint8(np.clip(to_grey(image, max(image.size)), 0, 1) * 255))
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    line = max(1, max(image.size) // 500)
    for digit in (digit for row in reading.rows for digit in row):
        left, top, right, bottom = digit.box
        colour = (20, 110, 240) if digit.confidence >= 0.9 else (230, 100, 0)
        draw.rectangle((left - line, top - line, right + line, bottom + line), None, colour, line)
        font = ImageFont.load_default(max(10, 0.35 * (bottom - top)))
        doubt = "" if digit.confidence >= 0.9 else "?"
        place = (left, top - 2 * line)
        draw.text(place, f"{class_names[digit.label]}{doubt}", colour, font, anchor="ls")
    return image
