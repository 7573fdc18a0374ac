"""Reading rows of digits from a page, from the file to the text, in the order of the steps.

The page is opened, its ink is found, the lines of forms are removed, and the remaining ink is split
into pieces, which are joined into digits and sorted into rows. Pieces that are too wide for one
digit are cut in every plausible way; the network scores all parts, and the best cuts are chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnistjax.reading.cuts import best_path, find_strips
from mnistjax.reading.gray import MAX_SIDE, to_gray
from mnistjax.reading.ink import find_page_ink, page_side
from mnistjax.reading.lines import without_lines
from mnistjax.reading.mnist_format import SIDE, normalize_strokes, to_mnist
from mnistjax.reading.network import check_image_shape, probabilities
from mnistjax.reading.pictures import Picture, load_upright
from mnistjax.reading.pieces import Piece, digit_height, find_pieces, in_rows, join_broken
from mnistjax.reading.planes import bounding_boxes, join_boxes
from mnistjax.runs import TrainedModel

if TYPE_CHECKING:
    from PIL.Image import Image

# In units of the height of a digit: a piece wider than MAX_WIDTH may be several digits that touch;
# a part of it that is wider than MAX_PART_WIDTH or lower than MIN_PART_HEIGHT is not a digit.
MAX_WIDTH, MAX_PART_WIDTH, MIN_PART_HEIGHT = 0.85, 1.5, 0.5

# Costs, subtracted from the log probability of a part and chosen on rows of MNIST's validation
# digits: per unit of width / height above WIDE, per unit of height / digit height below LOW, per
# unit of ink on a cut (in heights of a digit), and per digit.
WIDE, WIDTH_COST = 0.8, 4.0
LOW, LOW_COST = 0.85, 10.0
CUT_COST = 6.0
SPLIT_COST = 0.3


@dataclasses.dataclass(frozen=True)
class FoundDigit:
    """A digit on a page.

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
    """The digits read from a page.

    Attributes:
        rows: the digits, rows from top to bottom, each from left to right.
        text: the names of their classes, one line per row.
        confidence: the product of their confidences, which is the probability that all are right if
            errors are independent.
    """

    rows: tuple[tuple[FoundDigit, ...], ...]
    text: str
    confidence: float


def read_digits(trained: TrainedModel, picture: Picture) -> Reading:
    """Finds and reads the digits of a photographed row or page, such as a postal code or a form.

    Lines of forms and specks are ignored, the strokes of broken digits are joined, and digits that
    touch are separated where the network is more confident in the parts than in the whole. Rows may
    be skewed by a few degrees.

    Args:
        trained: the network, as `load_weights` returns it.
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        The reading; without rows if no digits are found.

    Raises:
        DataFormatError: the picture is missing, not an image, damaged, empty or too large.
        ConfigError: the network does not take images of shape (28, 28, 1).
    """
    check_image_shape(trained, (SIDE, SIDE, 1))
    image = load_upright(picture)
    ink, faint = find_page_ink(to_gray(image, max(MAX_SIDE, page_side(image.size))))
    scale = max(image.size) / max(ink.shape)
    rows = [
        tuple(
            FoundDigit(int(row.argmax()), float(row.max()), _box(piece, scale))
            for piece, row in digits
        )
        for digits in _read_rows(trained, find_rows(ink, faint))
    ]
    names = trained.info.class_names
    text = "\n".join("".join(names[digit.label] for digit in row) for row in rows)
    confidence = float(np.prod([digit.confidence for row in rows for digit in row]))
    return Reading(tuple(rows), text, confidence)


def find_rows(ink: np.ndarray, faint: np.ndarray) -> list[list[Piece]]:
    """Finds the digits of a page, where digits that touch form one piece.

    Args:
        ink: bool [H, W].
        faint: bool [H, W], including weaker ink.

    Returns:
        Rows from top to bottom, each from left to right.
    """
    height = digit_height(find_pieces(ink))
    if not height:
        return []
    pieces = find_pieces(without_lines(ink, faint, height))
    height = digit_height(pieces)
    digits = [piece for piece in join_broken(pieces, height) if not piece.is_line]
    return in_rows(digits, height)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The ways to split a piece into digits.

    Attributes:
        height: of a digit, in pixels.
        costs: float [K], the ink on each cut, in units of `height`; the first and the last cut are
            the edges of the piece.
        parts: the parts that may be digits, keyed by the cuts (left, right) that bound them. The
            whole piece is the first.
    """

    height: float
    costs: np.ndarray
    parts: Mapping[tuple[int, int], Piece]


def split(piece: Piece, height: float) -> Splits:
    """Finds the ways to split a piece into digits; their number grows linearly with its width.

    Args:
        piece: one digit, or several that touch.
        height: of a digit, in pixels.

    Returns:
        The cuts and the parts between them.
    """
    if piece.width <= MAX_WIDTH * height:
        return Splits(height, np.zeros(2), {(0, 1): piece})
    strips, costs = find_strips(piece.mask, height)
    boxes = bounding_boxes(strips)
    parts = {(0, len(boxes)): piece}
    for start in range(len(boxes)):
        box = boxes[start]
        for end in range(start + 1, len(boxes) + 1):
            rows, columns = box = join_boxes(box, boxes[end - 1])
            if columns.stop - columns.start >= MAX_PART_WIDTH * height:
                break  # Parts that end further right are even wider.
            if rows.stop - rows.start > MIN_PART_HEIGHT * height:
                mask = (strips[box] > start) & (strips[box] <= end)
                part = Piece(mask, piece.top + rows.start, piece.left + columns.start)
                parts.setdefault((start, end), part)
    return Splits(height, costs, parts)


def _read_rows(
    trained: TrainedModel, rows: Sequence[Sequence[Piece]]
) -> list[list[tuple[Piece, np.ndarray]]]:
    """Reads every piece as one digit or, if the network is more confident in them, as several."""
    heights = [float(np.median([piece.digit_height for piece in row])) for row in rows]
    splits = [
        [split(piece, height) for piece in row] for row, height in zip(rows, heights, strict=True)
    ]
    parts = [part for row in splits for ways in row for part in ways.parts.values()]
    images = [to_mnist(normalize_strokes(part.mask)) for part in parts]
    inputs = np.array(images, np.uint8).reshape(-1, *trained.info.image_shape)
    found = zip(parts, probabilities(trained, inputs), strict=True)
    return [[digit for ways in row for digit in _best_split(ways, found)] for row in splits]


def _best_split(
    ways: Splits, found: Iterator[tuple[Piece, np.ndarray]]
) -> list[tuple[Piece, np.ndarray]]:
    """Returns the parts of the best path through the cuts, with their probabilities.

    `found` yields the parts of all pieces in order; the next ones belong to this piece.
    """
    read = {ends: next(found) for ends in ways.parts}
    scores = {ends: _score(part, row, ways.height) for ends, (part, row) in read.items()}
    return [read[ends] for ends in best_path(scores, SPLIT_COST + CUT_COST * ways.costs)]


def _score(part: Piece, row: np.ndarray, height: float) -> float:
    """Scores a part as one digit: its log probability minus the costs of an unlikely shape."""
    wide = max(0.0, part.width / part.height - WIDE)
    low = max(0.0, LOW - part.height / height)
    return float(np.log(row.max() + 1e-6)) - WIDTH_COST * wide - LOW_COST * low


def _box(piece: Piece, scale: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = (
        round(edge * scale) for edge in (piece.left, piece.top, piece.right, piece.bottom)
    )
    return left, top, right, bottom


def describe_reading(reading: Reading, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns a reading as an object that JSON can hold.

    Args:
        reading: what `read_digits` returned.
        class_names: the names of the classes.

    Returns:
        `text`, `probability` (that all digits are right) and `rows`, in which each digit has
        `label` (the name of its class), `probability` and `box` (left, top, right, bottom).

    >>> describe_reading(Reading((), "", 1.0), "0123456789")
    {'text': '', 'probability': 1.0, 'rows': []}
    """
    rows = [
        [
            {"label": class_names[found.label], "probability": found.confidence, "box": found.box}
            for found in row
        ]
        for row in reading.rows
    ]
    return {"text": reading.text, "probability": reading.confidence, "rows": rows}


def annotate(picture: Picture, reading: Reading, class_names: Sequence[str]) -> Image:
    """Draws a reading on its picture: a box around every digit and its class above.

    Digits with a confidence below 90 % are orange, with a question mark; the others are blue.

    Args:
        picture: the picture that was read.
        reading: what `read_digits` returned.
        class_names: the names of the classes.

    Returns:
        A `PIL.Image.Image`, RGB, upright.

    Raises:
        DataFormatError: the picture is missing, not an image, damaged, empty or too large.

    >>> from PIL import Image
    >>> reading = Reading(((FoundDigit(7, 0.99, (10, 10, 30, 40)),),), "7", 0.99)
    >>> annotate(Image.new("L", (60, 50), 255), reading, "0123456789").size
    (60, 50)
    """
    from PIL import Image as Images
    from PIL import ImageDraw, ImageFont

    image = load_upright(picture)
    if image.mode not in ("L", "RGB", "RGBA", "P", "CMYK"):
        image = Images.fromarray(np.uint8(np.clip(to_gray(image, max(image.size)), 0, 1) * 255))
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    line = max(1, max(image.size) // 500)
    for digit in (digit for row in reading.rows for digit in row):
        left, top, right, bottom = digit.box
        sure = digit.confidence >= 0.9
        color = (20, 110, 240) if sure else (230, 100, 0)
        draw.rectangle((left - line, top - line, right + line, bottom + line), None, color, line)
        font = ImageFont.load_default(max(10, 0.35 * (bottom - top)))
        text = class_names[digit.label] + ("" if sure else "?")
        draw.text((left, top - 2 * line), text, color, font, anchor="ls")
    return image
