"""Finding the pieces of ink on a page, joining them into digits and sorting them into rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mnistjax.reading.planes import find_components

LONG = 4  # Width / height from which a piece is too wide for one digit.
MIN_HEIGHT = 0.35  # Of the lowest digit, in heights of a digit.
MAX_FRAMES = 200  # Pieces of a page that are searched for frames.
MIN_FILL, MAX_FILL = 0.12, 0.8  # A thin frame has less, and a line more.


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A connected component of ink, or several that belong together.

    Attributes:
        mask: bool [h, w], cropped.
        top: row of the page at which the mask begins.
        left: column of the page at which the mask begins.
    """

    mask: np.ndarray
    top: int
    left: int

    @property
    def bottom(self) -> int:
        """The row below the last one."""
        return self.top + self.mask.shape[0]

    @property
    def right(self) -> int:
        """The column to the right of the last one."""
        return self.left + self.mask.shape[1]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.mask.shape[1]

    @property
    def middle(self) -> float:
        """The middle row."""
        return self.top + self.height / 2

    @property
    def is_long(self) -> bool:
        """Whether it is too wide for a single digit of its height."""
        return self.width >= LONG * self.height

    @property
    def fill(self) -> float:
        """Ink as a fraction of the bounding box; in a long piece, of the area that ink encloses."""
        area = _column_heights(self.mask).sum() if self.is_long else self.mask.size
        return float(self.mask.sum() / area)

    @property
    def is_line(self) -> bool:
        """Whether it is a long line, straight or curved, which encloses hardly any paper."""
        return self.is_long and self.fill > MAX_FILL

    @property
    def digit_height(self) -> float:
        """The height of its digits in pixels.

        It is the height of the piece, except for several digits in a row, which may be skewed or of
        different heights: then it is the 0.9 quantile of the heights of the columns.
        """
        if not self.is_long or self.is_line:
            return float(self.height)
        return float(np.quantile(_column_heights(self.mask), 0.9))


def _column_heights(mask: np.ndarray) -> np.ndarray:
    """Returns the distance from the topmost to the lowest ink of every column that has ink."""
    mask = mask[:, mask.any(axis=0)]
    return len(mask) - mask.argmax(axis=0) - mask[::-1].argmax(axis=0)


def find_pieces(mask: np.ndarray) -> list[Piece]:
    """Returns the connected components of a mask.

    Args:
        mask: bool [H, W].

    Returns:
        One piece per component.
    """
    labels, boxes = find_components(mask)
    return [
        Piece(labels[rows, columns] == number, rows.start, columns.start)
        for number, (rows, columns) in enumerate(boxes, start=1)
    ]


def digit_height(pieces: Sequence[Piece]) -> float:
    """Estimates the height of the digits of a page: the median over its pieces, weighted by ink.

    Frames and lines are ignored.

    Args:
        pieces: all pieces of the page.

    Returns:
        The height in pixels; 0 if all pieces are frames or lines.
    """
    solid = [piece for piece in pieces if piece.fill > MIN_FILL and not piece.is_line]
    frames = _find_frames(solid, pieces)
    solid = [piece for number, piece in enumerate(solid) if number not in frames]
    if not solid:
        return 0.0
    heights = np.array([piece.digit_height for piece in solid])
    weights = np.array([piece.mask.sum() for piece in solid], float)
    return float(np.quantile(heights, 0.5, weights=weights, method="inverted_cdf"))


def _find_frames(solid: Sequence[Piece], pieces: Sequence[Piece]) -> set[int]:
    """Returns which of the solid pieces enclose another piece that is large enough for a digit.

    Only those with the most ink are searched, because the others hardly weigh, and a page may have
    many thousands of specks.
    """
    boxes = [(piece.top, piece.left, piece.bottom, piece.right) for piece in pieces]
    top, left, bottom, right = np.array(boxes, int).reshape(-1, 4).T
    frames = set()
    for number in np.argsort([-piece.mask.sum() for piece in solid])[:MAX_FRAMES]:
        outer = solid[number]
        enclosed = (outer.top < top) & (bottom < outer.bottom)
        enclosed &= (outer.left < left) & (right < outer.right)
        if (enclosed & (bottom - top > MIN_HEIGHT * outer.height)).any():
            frames.add(int(number))
    return frames


def join(pieces: Sequence[Piece]) -> Piece:
    """Joins pieces into one.

    Args:
        pieces: at least one piece.

    Returns:
        A piece with the ink of all.
    """
    top, left = min(piece.top for piece in pieces), min(piece.left for piece in pieces)
    bottom, right = max(piece.bottom for piece in pieces), max(piece.right for piece in pieces)
    mask = np.zeros((bottom - top, right - left), bool)
    for piece in pieces:
        mask[piece.top - top : piece.bottom - top, piece.left - left : piece.right - left] |= (
            piece.mask
        )
    return Piece(mask, top, left)


def join_broken(pieces: Sequence[Piece], height: float) -> list[Piece]:
    """Joins the strokes of broken digits, such as the bar of a 5, and removes specks.

    Args:
        pieces: all pieces of the page.
        height: of a digit, in pixels.

    Returns:
        The joined pieces that are tall enough for a digit.
    """
    joined = sorted(
        (piece for piece in pieces if piece.mask.sum() > 0.004 * height**2),
        key=lambda piece: -piece.height,
    )
    whole: list[Piece] = []
    for piece in joined:
        mates = [other for other in whole if _belong_together(other, piece, height)]
        if mates:
            mate = min(mates, key=lambda other: _distance(other, piece))
            whole[whole.index(mate)] = join([mate, piece])
        else:
            whole.append(piece)
    return [piece for piece in whole if piece.height > MIN_HEIGHT * height]


def _belong_together(large: Piece, small: Piece, height: float) -> bool:
    both = min(large.right, small.right) - max(large.left, small.left)
    union = max(large.bottom, small.bottom) - min(large.top, small.top)
    if union > 1.7 * height:
        return False
    if small.height > 0.7 * height:  # Tall enough for a digit of its own, unless it lies within.
        return both > 0.8 * small.width
    if small.height < 0.4 * height and _distance(large, small) < 0.12 * height:
        return True  # The bar of a 5, which may begin where the rest of it ends.
    return both > 0.4 * small.width and _distance(large, small) < 0.35 * height


def _distance(one: Piece, other: Piece) -> float:
    """Returns the distance between the bounding boxes of two pieces, in pixels."""
    across = max(one.left, other.left) - min(one.right, other.right)
    down = max(one.top, other.top) - min(one.bottom, other.bottom)
    return float(np.hypot(max(0, across), max(0, down)))


def in_rows(pieces: Sequence[Piece], height: float) -> list[list[Piece]]:
    """Sorts pieces into rows from top to bottom, each from left to right.

    Rows may be skewed: a piece joins the row whose last piece is vertically closest, if it is near.

    Args:
        pieces: pieces of one or more digits each.
        height: of a digit, in pixels.

    Returns:
        The rows.
    """
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.left):
        near = [row for row in rows if abs(row[-1].middle - piece.middle) < 0.55 * height]
        if near:
            min(near, key=lambda row: abs(row[-1].middle - piece.middle)).append(piece)
        else:
            rows.append([piece])
    return sorted(rows, key=lambda row: float(np.mean([piece.middle for piece in row])))
