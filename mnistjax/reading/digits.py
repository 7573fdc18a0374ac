"""Digits of one's own: pictures of one digit each, made into what the network was trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.evaluation.inference import predict_probabilities
from mnistjax.reading import ink
from mnistjax.reading.pictures import Picture, open_picture, picture_name, resize
from mnistjax.runs import TrainedModel

WORKING_SIDE = 400  # Pixels of the longer side at which a digit is looked at.

# Beyond these a picture gets a warning.
LEAST_CLARITY = 4.0  # Standard deviations of the paper; noise has 2 to 3, digits 8 and more.
LARGEST_SECOND = 0.2  # Of the ink; the bar of a broken 5 has less.
MOST_SHAPES = 4  # A broken digit has up to 3.
THICKEST_STROKE = 6.5  # Pixels in the box of 20; 99 % of thick digits are below 5.9.
LEAST_CONFIDENCE = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedDigit:
    """A picture of a digit as the network sees it.

    Attributes:
        image: uint8 [28, 28, 1], light on dark.
        warnings: why the picture may show no digit; empty if nothing speaks against one.
    """

    image: np.ndarray
    warnings: tuple[str, ...] = ()


def prepare_digit(grey: np.ndarray, name: str = "the image") -> PreparedDigit:
    """Turns a picture of one digit into an image as MNIST has them.

    The paper is estimated and taken away, ink is told from noise, specks are dropped, strokes that
    are far too thin or thick are redrawn, and what is left is cropped, reduced to a box of 20x20
    and put into 28x28 by its centre of mass. An image that is like MNIST's already stays as it is.

    Args:
        grey: float [H, W] of any range, or uint8 [H, W]; dark on light or light on dark.
        name: how error messages call the picture.

    Raises:
        DataFormatError: the picture is empty or of one colour.
    """
    grey = _checked(grey, name)
    if is_like_mnist(grey):
        return PreparedDigit(np.round(grey * 255).astype(np.uint8)[..., None])
    strokes, clarity = find_strokes(grey)
    image = ink.to_mnist(ink.normalise_strokes(strokes))
    return PreparedDigit(image, shape_doubts(strokes, clarity))


def _checked(grey: np.ndarray, name: str) -> np.ndarray:
    if grey.ndim != 2 or not grey.size:
        raise DataFormatError(f"expected a picture [H, W], found shape {grey.shape}: {name}")
    grey = grey.astype(np.float32) / (255 if grey.dtype == np.uint8 else 1)
    if not float(np.ptp(grey)) >= ink.LEAST_CONTRAST:  # so is NaN
        raise DataFormatError(f"expected a picture of a digit, found one colour only: {name}")
    return grey


def is_like_mnist(grey: np.ndarray) -> bool:
    """Tells whether an image was prepared already, as MNIST's images were.

    Args:
        grey: float [H, W] in [0, 1].
    """
    if grey.shape != (ink.SIDE, ink.SIDE):
        return False
    inner = grey[2:-2, 2:-2]
    rim_is_black = float(grey.sum() - inner.sum()) < 0.01 * float(grey.sum())
    rows, columns = (np.flatnonzero((grey > 0.1).any(axis=axis)) for axis in (1, 0))
    if not rim_is_black or not len(rows) or grey.max() < 0.5 or np.median(grey) > 0.1:
        return False
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    off_centre = np.abs(np.subtract(ink.centre_of_mass(grey), ink.CENTRE)).max()
    return bool(abs(longest - ink.BOX) <= 2 and off_centre <= 1.5)


def find_strokes(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds the ink of the digit in a picture of one.

    The picture is looked at twice: as a whole, and then closer, if the digit is small in it.

    Args:
        grey: float [H, W].

    Returns:
        (strokes, clarity): bool [h, w], cropped; and how many standard deviations of the paper lie
        between it and the ink.
    """
    mask, clarity = _main_strokes(_at_working_size(grey))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    if size > 0.5 * max(mask.shape):
        return ink.crop(mask), clarity
    scale = max(grey.shape) / max(mask.shape)
    low = [max(0, int((side[0] - 0.3 * size) * scale)) for side in (rows, columns)]
    high = [int((side[-1] + 0.3 * size) * scale) + 1 for side in (rows, columns)]
    closer = grey[low[0] : high[0], low[1] : high[1]]
    return ink.crop(_main_strokes(_at_working_size(closer))[0]), clarity


def _at_working_size(grey: np.ndarray) -> np.ndarray:
    factor = WORKING_SIDE / max(grey.shape)
    height, width = grey.shape
    return resize(grey, shape=(max(1, round(height * factor)), max(1, round(width * factor))))


def _main_strokes(grey: np.ndarray) -> tuple[np.ndarray, float]:
    from scipy import ndimage

    strength = ink.ink_strength(grey, ink.smooth_background(grey))
    strength = ndimage.gaussian_filter(strength, 1.5)
    mask = strength > ink.otsu_threshold(strength)
    paper = strength[~mask]
    clarity = float((strength[mask].mean() - paper.mean()) / (paper.std() + 1e-6))
    return main_components(mask, strength), clarity


def shape_doubts(strokes: np.ndarray, clarity: float) -> tuple[str, ...]:
    """Says why strokes may be no digit.

    The bounds were set on photographs made from MNIST's validation digits: 2 of 300 go beyond one,
    and so do 96 of 100 pictures of blank paper, all of noise and of several digits, and half of the
    filled rectangles. Letters and scribbles are strokes too: only the network can doubt them, and
    it doubts 4 in 10 (`confidence_doubts`).

    Args:
        strokes: bool [h, w], cropped.
        clarity: as `find_strokes` gives it.
    """
    labels, places = ink.find_components(strokes)
    areas = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    doubts = []
    if clarity < LEAST_CLARITY:
        doubts.append("hardly any contrast between ink and paper")
    several = len(places) > 1 and areas[1] > LARGEST_SECOND * areas.sum()
    if several or len(places) > MOST_SHAPES:
        doubts.append("several separate shapes (mnistjax read reads rows of digits)")
    if ink.stroke_width(strokes) * ink.BOX / max(strokes.shape) > THICKEST_STROKE:
        doubts.append("a blot rather than strokes")
    return tuple(doubts)


def confidence_doubts(probabilities: np.ndarray) -> tuple[str, ...]:
    """Says whether a network is too unsure of an image.

    Args:
        probabilities: float [num_classes].
    """
    return ("the network is not sure",) if probabilities.max() < LEAST_CONFIDENCE else ()


def main_components(mask: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Drops what is not of the digit: specks, and what comes in from the edge of the picture.

    Args:
        mask: bool [H, W].
        strength: float [H, W], how much ink there is.

    Returns:
        bool [H, W].
    """
    from scipy import ndimage

    labels, places = ink.find_components(mask)
    mass = ndimage.sum_labels(strength, labels, np.arange(1, len(places) + 1))
    on_edge = np.array(
        [
            place.start == 0 or place.stop == size
            for slices in places
            for place, size in zip(slices, mask.shape, strict=True)
        ]
    ).reshape(-1, 2)
    inside = ~on_edge.any(axis=1)
    if inside.any() and mass[inside].max() > 0.3 * mass.max():
        mass = np.where(inside, mass, 0)
    kept = np.flatnonzero(mass >= 0.05 * mass.max()) + 1
    return np.isin(labels, kept)


def prepare_picture(picture: Picture) -> PreparedDigit:
    """Opens a picture of one digit and prepares it.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Raises:
        DataFormatError: as `open_picture` and `prepare_digit`.
    """
    return prepare_digit(open_picture(picture), picture_name(picture))


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of N pictures.

    Attributes:
        probabilities: float32 [N, num_classes]; each row sums to 1.
        class_names: the names of the classes.
        inputs: uint8 [N, H, W, C], what the network saw.
        warnings: for each picture why it may show no digit; empty if nothing speaks against one.
    """

    probabilities: np.ndarray
    class_names: tuple[str, ...]
    inputs: np.ndarray
    warnings: tuple[tuple[str, ...], ...]

    @property
    def labels(self) -> np.ndarray:
        """The most probable class of each picture, int [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        """The probability of that class, float32 [N]."""
        return self.probabilities.max(axis=1)

    @property
    def runners_up(self) -> np.ndarray:
        """The second most probable class of each picture, int [N]."""
        return np.argsort(self.probabilities, axis=1)[:, -2]


def predict(
    trained: TrainedModel, pictures: np.ndarray | Picture | Sequence[Picture]
) -> Predictions:
    """Says what images show.

    Args:
        trained: the network, as `load_weights` gives it.
        pictures: an array uint8 [N, H, W, C] of images as the network was trained on, which are
            taken as they are; or paths or `PIL.Image.Image`s (one, or a sequence of them), which
            are opened and prepared: any format, size, mode, rotation, light and ink.

    Raises:
        DataFormatError: the array is of another shape or dtype; or a picture is missing, no image,
            damaged, too large, empty or of one colour. The message names it.
        ConfigError: pictures were given, and the network takes images of another shape than 28x28.
    """
    if isinstance(pictures, np.ndarray):
        images = _checked_batch(pictures, trained.info.image_shape)
        return predict_prepared(trained, [PreparedDigit(image) for image in images])
    if isinstance(pictures, str | os.PathLike) or not isinstance(pictures, Sequence):
        pictures = [pictures]
    return predict_prepared(trained, [prepare_picture(picture) for picture in pictures])


def _checked_batch(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        expected = ", ".join(str(size) for size in shape)
        raise DataFormatError(
            f"expected images uint8 [N, {expected}], found {images.dtype} {list(images.shape)}"
        )
    return images


def predict_prepared(trained: TrainedModel, prepared: Sequence[PreparedDigit]) -> Predictions:
    """Says what prepared pictures show.

    Args:
        trained: the network.
        prepared: what `prepare_digit` gave.

    Raises:
        ConfigError: the network takes images of another shape.
    """
    shape = trained.info.image_shape
    for digit in prepared:
        if digit.image.shape != shape:
            raise ConfigError(
                f"expected a network of images {list(digit.image.shape)}, found {list(shape)}"
            )
    inputs = np.array([digit.image for digit in prepared], np.uint8).reshape(-1, *shape)
    probabilities = predict_probabilities(trained.model, trained.variables, inputs)
    warnings = tuple(
        digit.warnings + confidence_doubts(row)
        for digit, row in zip(prepared, probabilities, strict=True)
    )
    return Predictions(probabilities, trained.info.class_names, inputs, warnings)
