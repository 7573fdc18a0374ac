"""Finding the digits of a page: its ink, in pieces, in rows, and where pieces may be cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mnistjax.reading import ink
from mnistjax.reading.pictures import resize

WORKING_SIDE = 1400  # Pixels of the longer side at which a page is looked at.
MEDIAN_WINDOW = 0.25  # Of the longer side; strokes are thin against it.
FAINT_LINE, FAINT_STROKE = 0.5, 0.7  # Of the threshold between paper and ink.
LONGEST_CUT = 0.4  # Heights of a digit; a longer cut goes through a digit, not between two.


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Connected ink, or several pieces that belong together.

    Attributes:
        mask: bool [h, w], cropped.
        top: row of the page where the mask begins.
        left: column of the page where the mask begins.
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
        """The column behind the last one."""
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
        """The row half-way down."""
        return self.top + self.height / 2


def find_ink(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tells the ink of a page from its paper.

    Args:
        grey: float [H, W].

    Returns:
        (ink, faint): bool [H', W'], the longer side `WORKING_SIDE` pixels. `faint` has weaker ink
        too, such as the lines of forms. Both are all False on a blank page.
    """
    from scipy import ndimage

    factor = WORKING_SIDE / max(grey.shape)
    height, width = (max(1, round(size * factor)) for size in grey.shape)
    grey = resize(grey, shape=(height, width))
    smooth = ink.smooth_background(grey)
    background = smooth + ink.local_background(grey - smooth, MEDIAN_WINDOW)
    strength = ink.ink_strength(grey, background)
    if np.array_equal(strength, background - grey):
        # Dark ink takes away a share of the light that the paper would send back.
        strength = strength / np.maximum(background, 0.1)
    strength = ndimage.gaussian_filter(strength, max(1.0, 0.7 * factor))
    threshold = ink.otsu_threshold(strength)
    noise = 1.4826 * float(np.median(np.abs(strength)))
    if threshold < max(2 * noise, ink.LEAST_CONTRAST):
        return np.zeros(strength.shape, bool), np.zeros(strength.shape, bool)
    floor = min(3 * noise, threshold)
    sure, faint = strength > threshold, strength > max(FAINT_LINE * threshold, floor)
    # Thin strokes are paler: they go as far as they are connected with what is surely ink.
    likely = strength > max(FAINT_STROKE * threshold, floor)
    return ndimage.binary_propagation(sure, ink.NEIGHBOURS, likely), faint


def find_pieces(mask: np.ndarray) -> list[Piece]:
    """Returns the connected parts of a mask.

    Args:
        mask: bool [H, W].
    """
    labels, places = ink.find_components(mask)
    return [
        Piece(labels[rows, columns] == number, rows.start, columns.start)
        for number, (rows, columns) in enumerate(places, start=1)
    ]


def digit_height(pieces: Sequence[Piece]) -> float:
    """Estimates the height of the digits of a page: the median over ink, not over pieces.

    Thin frames and long lines do not count.

    Args:
        pieces: of the page.

    Returns:
        Height in pixels; 0 where there is nothing like a digit.
    """
    solid = [
        piece for piece in pieces if piece.mask.mean() > 0.12 and piece.width < 4 * piece.height
    ]
    if not solid:
        return 0.0
    heights = np.array([piece.height for piece in solid], float)
    weights = np.array([piece.mask.sum() for piece in solid], float)
    order = np.argsort(heights)
    half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(heights[order][half])


def join(pieces: Sequence[Piece]) -> Piece:
    """Puts pieces together.

    Args:
        pieces: at least one.
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
    """Joins the strokes of broken digits, such as the bar of a 5, and drops specks.

    Args:
        pieces: of the page.
        height: of a digit, in pixels.

    Returns:
        Pieces that are large enough for a digit.
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
    return [piece for piece in whole if piece.height > 0.4 * height]


def _belong_together(large: Piece, small: Piece, height: float) -> bool:
    both = min(large.right, small.right) - max(large.left, small.left)
    union = max(large.bottom, small.bottom) - min(large.top, small.top)
    if union > 1.6 * height:
        return False
    if small.height > 0.7 * height:  # Almost a digit itself: only if it lies within the other.
        return both > 0.8 * small.width
    return both > 0.4 * small.width and _distance(large, small) < 0.35 * height


def _distance(one: Piece, other: Piece) -> float:
    """The smaller of two gaps that an eye sees: between boxes, along rows and columns."""
    across = max(one.left, other.left) - min(one.right, other.right)
    down = max(one.top, other.top) - min(one.bottom, other.bottom)
    return float(np.hypot(max(0, across), max(0, down)))


def in_rows(pieces: Sequence[Piece], height: float) -> list[list[Piece]]:
    """Sorts pieces into rows, top to bottom, each left to right.

    A row may be skewed: a piece joins the row whose nearest piece on its left is about as high up.

    Args:
        pieces: one a digit.
        height: of a digit, in pixels.
    """
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.left):
        near = [row for row in rows if abs(row[-1].middle - piece.middle) < 0.55 * height]
        if near:
            min(near, key=lambda row: abs(row[-1].middle - piece.middle)).append(piece)
        else:
            rows.append([piece])
    return sorted(rows, key=lambda row: float(np.mean([piece.middle for piece in row])))


@dataclasses.dataclass(frozen=True, eq=False)
class Strips:
    """A piece, cut from top to bottom wherever digits may touch.

    Attributes:
        piece: what was cut.
        number: int [h, w], the strip of each pixel, counting from 0 at the left.
        cuts: float [number of strips + 1], the ink that each cut goes through, in heights of a
            digit; the first and the last are the edges of the piece, and zero.
    """

    piece: Piece
    number: np.ndarray
    cuts: np.ndarray

    def part(self, first: int, last: int) -> Piece | None:
        """Returns the strips from `first` to before `last` as one piece; None without ink."""
        mask = self.piece.mask & (self.number >= first) & (self.number < last)
        if not mask.any():
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(self.piece.top + rows[0]), int(self.piece.left + columns[0])
        return Piece(ink.crop(mask), top, left)


def cut_into_strips(piece: Piece, height: float) -> Strips:
    """Cuts a piece where there is little ink between its left and its right.

    Args:
        piece: one digit, or several that touch.
        height: of a digit, in pixels.
    """
    seams: list[np.ndarray] = []
    cuts = [0.0]
    for middle in np.arange(0.2 * height, piece.width - 0.15 * height, 0.12 * height):
        seam = _seam(piece.mask, middle, 0.12 * height)
        cut = float(piece.mask[np.arange(piece.height), seam].sum() / height)
        if cut < LONGEST_CUT and not any(np.array_equal(seam, other) for other in seams):
            seams.append(seam)
            cuts.append(cut)
    column = np.arange(piece.width)[None]
    number = np.zeros(piece.mask.shape, int)
    for seam in seams:
        number += column >= seam[:, None]
    return Strips(piece, number, np.array([*cuts, 0.0]))


def _seam(mask: np.ndarray, middle: float, reach: float) -> np.ndarray:
    """Returns the column of the cut in every row: a path of least ink near `middle`."""
    low = max(0, int(middle - 2 * reach))
    mask = mask[:, low : int(middle + 2 * reach) + 1]
    away = np.abs(np.arange(mask.shape[1]) - (middle - low)) / reach
    total = mask + 0.05 * np.square(away)[None]
    for row in range(1, len(total)):
        left = np.append(np.inf, total[row - 1, :-1]) + 0.05
        right = np.append(total[row - 1, 1:], np.inf) + 0.05
        total[row] += np.minimum(total[row - 1], np.minimum(left, right))
    seam = np.empty(len(total), int)
    seam[-1] = np.argmin(total[-1])
    for row in range(len(total) - 2, -1, -1):
        start = max(0, seam[row + 1] - 1)
        seam[row] = start + np.argmin(total[row, start : seam[row + 1] + 2])
    return seam + low
