"""Finding strokes in pictures that show more than a digit on plain paper.

The edge of a sheet, of a shadow or of a reflection stands out as much as ink does. What tells them
apart is that a stroke is thin: it is darker, or lighter, than what lies on both sides of it, which
`stroke_contrast` measures. Candidates of several widths are found so, and their shapes and the
network choose among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mnistjax.reading.ink import (
    DIGIT_SIDE,
    MAD_TO_STD,
    MIN_SHARE,
    are_strokes,
    otsu_threshold,
    stroke_contrast,
    strongest_nearby,
)
from mnistjax.reading.mnist_format import BOX, normalize_strokes, to_mnist
from mnistjax.reading.planes import (
    NEIGHBORS,
    Box,
    bounding_box,
    crop,
    find_components,
    fit_size,
    is_inside,
    resize,
)

WINDOWS = (15, 31, 63)  # In pixels at `DIGIT_SIDE`; strokes are narrower than one of them.
MIN_STROKE_CONTRAST = 0.04  # 1 - ink / paper.
NEAR_WINDOW = 31  # In which the strongest contrast is searched; see `_evened_out`.
NEAR_SHARE = 0.35  # The threshold there, as a share of that.
MIN_SIDE = 16  # In pixels at `DIGIT_SIDE`; anything smaller is dirt.
MAX_SHAPES = 3  # Shapes with the most ink that are considered for each window.
MAX_MATES = 30  # Shapes with the most ink that may be parts of a broken digit.
FAINT = 0.25  # Fraction of the median contrast of a shape that still belongs to it.
ALIKE = 0.1  # Fraction of their size by which the edges of the same strokes may differ.
MIN_THIN = 0.7  # Fraction of ink that must be thin; otherwise it is something else.

# Rounded weights of `evidence`, from a logistic model of which generated pictures show a digit, and
# the limits of what is weighed. Where there are candidates, 2 % of 383 training digits that are
# read right have less than the minimum, and 87 % of 292 pictures without a digit (both without the
# candidates of `_evened_out`).
SCORE, ODDS, CLARITY = 0.4, 0.7, 1.2
MAX_SCORE, MAX_ODDS, MIN_CLEAR = 12.0, 8.0, 0.5
MIN_EVIDENCE = 5.25

# Rounded weights of `Candidate.score`, from a conditional logit model of which candidate is right,
# fitted on 400 generated pictures of MNIST's training digits.
SURE, INK, SIZE = 2.9, 0.8, 0.9
AT_BORDER, LIGHT, CUT_OFF = 2.7, 1.1, 2.1
THICK, THIN, UNEVEN, FILLED = 2.1, 2.1, 1.7, 1.7


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Strokes that may be the digit of a picture.

    Attributes:
        strokes: bool [h, w], cropped.
        image: uint8 [28, 28, 1], the strokes in the format of MNIST.
        box: where they are in the picture, in pixels at `DIGIT_SIDE`.
        clarity: the distance between ink and ground in standard deviations of the ground.
        ink: sum of the contrast over the strokes.
        at_border: whether they touch the border of the picture.
        light: whether they are lighter than the ground.
        cut_off: whether they are part of a candidate that a wider window found.
        width: of the strokes, in pixels of a digit 20 pixels high.
        unevenness: standard deviation of the width along the strokes / its mean.
    """

    strokes: np.ndarray
    image: np.ndarray
    box: Box
    clarity: float
    ink: float
    at_border: bool
    light: bool
    width: float
    unevenness: float
    cut_off: bool = False

    def is_like(self, other: Candidate) -> bool:
        """Returns whether two candidates are the same strokes, but for their outlines.

        The edges of their boxes differ by at most `ALIKE` of the size, and the areas by twice that.
        """
        apart = max(
            abs(one - another)
            for a, b in zip(self.box, other.box, strict=True)
            for one, another in ((a.start, b.start), (a.stop, b.stop))
        )
        more, less = sorted((int(self.strokes.sum()), int(other.strokes.sum())), reverse=True)
        return apart <= ALIKE * max(self.strokes.shape) and more <= (1 + 2 * ALIKE) * less

    def score(self, probability: float, most_ink: float) -> float:
        """Returns how likely these strokes are the digit, compared with other candidates.

        Args:
            probability: of the class that the network predicts.
            most_ink: the most ink of a candidate that does not touch the border.
        """
        shape = SIZE * np.log(max(self.strokes.shape)) - FILLED * float(self.strokes.mean())
        wide, narrow = np.log(self.width / 3.5), np.log(2 / self.width)
        shape -= THICK * max(0.0, wide) + THIN * max(0.0, narrow)
        shape -= UNEVEN * self.unevenness
        place = AT_BORDER * self.at_border + LIGHT * self.light + CUT_OFF * self.cut_off
        return float(SURE * np.log(probability) + INK * np.log(self.ink / most_ink) + shape - place)


def smooth_plane(gray: np.ndarray) -> np.ndarray:
    """Resizes a picture to `DIGIT_SIDE` and removes its noise, for the functions below.

    Args:
        gray: float [H, W], from black 0 to white 1.

    Returns:
        float [H', W'] with a longer side of `DIGIT_SIDE` pixels.
    """
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(resize(gray, fit_size(gray.shape, DIGIT_SIDE)), 1.2))


def are_thin(plane: np.ndarray, mask: np.ndarray) -> bool:
    """Returns whether ink is strokes, rather than the shadow or the table beside a sheet.

    Args:
        plane: float [H, W], what `smooth_plane` returned.
        mask: bool [H, W], the ink in it.
    """
    contrasts = (stroke_contrast(plane, WINDOWS[-1], light=light) for light in (False, True))
    return any(are_strokes(contrast, mask, MIN_THIN) for contrast in contrasts)


def find_candidates(plane: np.ndarray) -> list[Candidate]:
    """Finds the strokes in a picture that may be its digit.

    Args:
        plane: float [H, W], what `smooth_plane` returned.

    Returns:
        The candidates, dark and light; of each at most six per window, and six that reflections
        have bleached. There may be none.
    """
    found: list[Candidate] = []
    for light in (False, True):
        same: list[Candidate] = []
        for window in WINDOWS:
            contrast = stroke_contrast(plane, window, light=light)
            threshold = max(otsu_threshold(contrast), MIN_STROKE_CONTRAST)
            wider = list(_candidates(contrast, threshold, light))
            same = [_compared(one, wider) for one in same] + wider
        # Of the widest window, in which all strokes have contrast.
        evened = _candidates(_evened_out(contrast, threshold), threshold, light)
        found += same + [one for one in evened if not any(map(one.is_like, wider))]
    return found


def best_candidate(candidates: Sequence[Candidate], probabilities: np.ndarray) -> tuple[int, float]:
    """Chooses the candidate that is most likely the digit, by its shape and the network.

    Args:
        candidates: at least one.
        probabilities: float [N], that each of them is the digit that the network predicts.

    Returns:
        The index of the best one, and its score.
    """
    free = [one.ink for one in candidates if not one.at_border]
    most = max(free or [one.ink for one in candidates])
    scores = [
        one.score(float(sure) + 1e-3, most)
        for one, sure in zip(candidates, probabilities, strict=True)
    ]
    return int(np.argmax(scores)), max(scores)


def evidence(candidate: Candidate, score: float, probability: float) -> float:
    """Weighs what speaks for strokes being a digit, rather than anything else.

    Args:
        candidate: the strokes.
        score: of the candidate, from `best_candidate`.
        probability: from 0 to 1, that it is the digit that the network predicts.

    Returns:
        The logarithm of the odds, up to a constant; compare it with `MIN_EVIDENCE`.
    """
    odds = np.log((probability + 1e-6) / (1 - probability + 1e-6))
    clarity = np.log(max(candidate.clarity, MIN_CLEAR))
    score = min(score, MAX_SCORE)
    return float(SCORE * score + ODDS * np.clip(odds, -MAX_ODDS, MAX_ODDS) + CLARITY * clarity)


def _evened_out(contrast: np.ndarray, threshold: float) -> np.ndarray:
    """Amplifies contrast where all nearby is weak, because a reflection bleaches ink and board."""
    noise = MAD_TO_STD * float(np.median(np.abs(contrast - np.median(contrast))))
    nearby = strongest_nearby(contrast, NEAR_WINDOW, 1)
    lowest = max(4 * noise, MIN_SHARE * threshold, MIN_STROKE_CONTRAST / 2)
    return np.asarray(contrast * (threshold / np.clip(NEAR_SHARE * nearby, lowest, threshold)))


def _candidates(contrast: np.ndarray, threshold: float, light: bool) -> Iterator[Candidate]:
    """Yields the shapes with the most contrast, alone and with parts that lie near."""
    from scipy import ndimage

    labels, boxes = find_components(contrast > threshold)
    numbers = np.arange(1, len(boxes) + 1)
    ink = np.asarray(ndimage.sum_labels(contrast, labels, numbers))
    mean = np.asarray(ndimage.mean(contrast, labels, numbers))
    inside = np.array([is_inside(box, contrast.shape) for box in boxes], bool)
    order = np.argsort(-ink * np.where(inside, 1, 0.1))
    large = [n for n in order if _side(boxes[n]) >= MIN_SIDE]
    used: set[int] = set()
    for main in large:
        if main in used:
            continue
        if len(used) >= MAX_SHAPES:
            return
        mates = [
            other
            for other in order[:MAX_MATES]
            if other != main
            and other not in used
            and inside[other]
            and mean[other] > 0.5 * mean[main]
            and ink[other] > 0.03 * ink[main]
            and _may_be_parts(boxes[main], boxes[other])
        ]
        used.add(main)
        for group in ([main], [main, *mates])[: 1 + bool(mates)]:
            mask = np.isin(labels, np.array(group) + 1)
            yield _candidate(contrast, mask, threshold, bool(inside[main]), light)


def _candidate(
    contrast: np.ndarray, sure: np.ndarray, threshold: float, inside: bool, light: bool
) -> Candidate:
    """Draws the outline of a shape at a threshold of its own, and measures it."""
    from scipy import ndimage

    own = max(MIN_STROKE_CONTRAST, FAINT * float(np.median(contrast[sure])))
    tight = bounding_box(sure)
    box = (
        slice(max(0, tight[0].start - 3), tight[0].stop + 3),
        slice(max(0, tight[1].start - 3), tight[1].stop + 3),
    )
    mask = sure[box] & (contrast[box] > own)
    if own < threshold:
        mask = ndimage.binary_propagation(sure[box], NEIGHBORS, contrast[box] > own)
    inked, ground = contrast[box][mask], contrast[~sure]
    strokes = crop(mask)
    depth = ndimage.distance_transform_edt(np.pad(strokes, 1))[1:-1, 1:-1]
    along = depth[strokes & (depth >= ndimage.maximum_filter(depth, 3))]
    return Candidate(
        strokes,
        to_mnist(normalize_strokes(strokes)),
        tight,
        clarity=float((inked.mean() - ground.mean()) / (ground.std() + 1e-6)),
        ink=float(contrast[sure].sum()),
        at_border=not inside,
        light=light,
        width=4 * float(depth[strokes].mean()) * BOX / max(strokes.shape),
        unevenness=float(along.std() / along.mean()),
    )


def _compared(one: Candidate, wider: Sequence[Candidate]) -> Candidate:
    """Marks a candidate if a wider window has found it as part of more strokes."""
    for other in wider:
        whole = not other.at_border and other.width < 6 and other.ink > 1.15 * one.ink
        if whole and _contains(other.box, one.box):
            return dataclasses.replace(one, cut_off=True)
    return one


def _side(box: Box) -> int:
    return max(side.stop - side.start for side in box)


def _contains(outer: Box, inner: Box) -> bool:
    sides = zip(outer, inner, strict=True)
    return all(a.start <= b.start and b.stop <= a.stop for a, b in sides)


def _may_be_parts(main: Box, other: Box) -> bool:
    """Returns whether two shapes are near enough for the strokes of one digit."""
    sides = zip(main, other, strict=True)
    gaps = [max(0, max(a.start, b.start) - min(a.stop, b.stop)) for a, b in sides]
    larger = max(_side(main), _side(other))
    return _side(other) >= 0.12 * _side(main) and float(np.hypot(*gaps)) < 0.2 * larger
