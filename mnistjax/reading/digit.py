"""Recognizing one digit per picture, from the file to the prediction, in the order of the steps.

A picture is opened, reduced to gray, its strokes are found, checked and redrawn as an image in the
format of MNIST, and the network predicts what it shows.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnistjax.errors import DataFormatError
from mnistjax.reading.gray import to_gray
from mnistjax.reading.ink import MIN_CONTRAST, find_digit_ink
from mnistjax.reading.mnist_format import BOX, is_like_mnist, normalize_strokes, to_mnist
from mnistjax.reading.network import check_image_shape, probabilities
from mnistjax.reading.pictures import Picture, load_upright, picture_name
from mnistjax.reading.planes import Box, bounding_box, crop, find_components, stroke_width
from mnistjax.runs import TrainedModel

# Outside of these a picture gets a warning.
MIN_CLARITY = 4.0  # Standard deviations of the paper; noise has 2 to 3, digits 8 and more.
MAX_SECOND = 0.2  # Of the ink, in the second largest component; the bar of a broken 5 has less.
MAX_COMPONENTS = 4  # A broken digit has up to 3.
MAX_STROKE = 6.5  # Pixels in the box of 20; 99 % of thick digits are below 5.9.
MIN_CONFIDENCE = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedDigit:
    """A picture of a digit as the network sees it.

    Attributes:
        image: uint8 [28, 28, 1], light on dark.
        warnings: reasons to doubt that the picture shows a digit; empty if there are none.
    """

    image: np.ndarray
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a network for N pictures.

    Attributes:
        probabilities: float32 [N, num_classes]; each row sums to 1.
        class_names: the names of the classes.
        inputs: uint8 [N, H, W, C], what the network saw.
        warnings: for each picture the reasons to doubt that it shows a digit; empty if there are
            none.
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
    trained: TrainedModel,
    pictures: np.ndarray | Picture | PreparedDigit | Sequence[Picture | PreparedDigit],
) -> Predictions:
    """Predicts which digit each picture shows.

    Args:
        trained: the network, as `load_weights` returns it.
        pictures: an array uint8 [N, H, W, C] of images like those the network was trained on, which
            are used unchanged; or one picture, or a sequence of pictures. A picture is the path of
            a file or a `PIL.Image.Image` in any format, size, mode, rotation, light and ink, or
            what `prepare_digit` returned.

    Returns:
        The predictions, in the order of the pictures.

    Raises:
        DataFormatError: the array has another shape or dtype; or a picture is missing, not an
            image, damaged, too large, empty or of one color. The message names it.
        ConfigError: pictures were given, and the network takes images of another shape than
            (28, 28, 1).
    """
    if isinstance(pictures, np.ndarray):
        images = _checked_batch(pictures, trained.info.image_shape)
        prepared = [PreparedDigit(image) for image in images]
    else:
        if isinstance(pictures, str | os.PathLike) or not isinstance(pictures, Sequence):
            pictures = [pictures]
        prepared = [_prepared(picture) for picture in pictures]
    for digit in prepared:
        check_image_shape(trained, digit.image.shape)
    inputs = np.array([digit.image for digit in prepared], np.uint8)
    inputs = inputs.reshape(-1, *trained.info.image_shape)
    rows = probabilities(trained, inputs)
    warnings = tuple(
        digit.warnings + confidence_warnings(row) for digit, row in zip(prepared, rows, strict=True)
    )
    return Predictions(rows, trained.info.class_names, inputs, warnings)


def _checked_batch(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        expected = ", ".join(str(size) for size in shape)
        raise DataFormatError(
            f"expected images uint8 [N, {expected}], found {images.dtype} {list(images.shape)}"
        )
    return images


def _prepared(picture: Picture | PreparedDigit) -> PreparedDigit:
    if isinstance(picture, PreparedDigit):
        return picture
    return prepare_digit(open_picture(picture), picture_name(picture))


def open_picture(picture: Picture) -> np.ndarray:
    """Opens a picture of any format, size and mode that Pillow reads as one gray plane.

    It is rotated as its EXIF orientation says, and put on a plain ground where it is transparent.
    Gray is not the luminance but the mixture of red, green and blue in which the picture has the
    most detail, so that red ink on green paper stands out too.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        float32 [H, W], about 0 to 1, with at most 2048 pixels on the longer side.

    Raises:
        DataFormatError: the file is missing, a folder, not an image, damaged, truncated, or has
            more than 64 Mi pixels.

    >>> from PIL import Image
    >>> float(open_picture(Image.new("L", (40, 30), 51)).max())
    0.20000000298023224
    """
    return to_gray(load_upright(picture))


def prepare_digit(gray: np.ndarray, name: str = "the image") -> PreparedDigit:
    """Turns a picture of one digit into an image in the format of MNIST.

    The paper is estimated and subtracted, ink is separated from noise, specks are removed, strokes
    that are far too thin or thick are redrawn, and the rest is cropped, scaled to a box of 20x20
    and put into 28x28 by its center of mass, as MNIST's digits were (LeCun et al., 1998,
    https://doi.org/10.1109/5.726791). An image that is in this format already stays unchanged.

    Args:
        gray: float [H, W] of any range, or uint8 [H, W]; dark on light or light on dark.
        name: what error messages call the picture.

    Returns:
        The image, and warnings if it may not be a digit.

    Raises:
        DataFormatError: the picture is empty or of one color.

    >>> page = np.ones((90, 70))
    >>> page[20:70, 30:38] = 0
    >>> prepare_digit(page).image.shape
    (28, 28, 1)
    """
    gray = _checked(gray, name)
    if is_like_mnist(gray):
        return PreparedDigit(np.round(gray * 255).astype(np.uint8)[..., None])
    strokes, clarity = find_strokes(gray)
    return PreparedDigit(to_mnist(normalize_strokes(strokes)), stroke_warnings(strokes, clarity))


def _checked(gray: np.ndarray, name: str) -> np.ndarray:
    if gray.ndim != 2 or not gray.size:
        raise DataFormatError(f"expected a picture [H, W], found shape {gray.shape}: {name}")
    gray = gray.astype(np.float32) / (255 if gray.dtype == np.uint8 else 1)
    if not float(np.ptp(gray)) >= MIN_CONTRAST:  # Refuses pictures with NaN too.
        raise DataFormatError(f"expected a picture of a digit, found one color only: {name}")
    return gray


def find_strokes(gray: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds the strokes of the digit in a picture of one.

    If the digit is small in the picture, it is looked at a second time in a closer section.

    Args:
        gray: float [H, W].

    Returns:
        (strokes, clarity): bool [h, w], cropped; and the distance between ink and paper in
        standard deviations of the paper.
    """
    mask, strength, clarity = find_digit_ink(gray)
    strokes = main_components(mask, strength)
    box = bounding_box(strokes)
    size = max(side.stop - side.start for side in box)
    if size <= 0.5 * max(strokes.shape):
        scale = max(gray.shape) / max(strokes.shape)
        low = [max(0, int((side.start - 0.3 * size) * scale)) for side in box]
        high = [int((side.stop - 1 + 0.3 * size) * scale) + 1 for side in box]
        mask, strength, _ = find_digit_ink(gray[low[0] : high[0], low[1] : high[1]])
        strokes = main_components(mask, strength)
    return crop(strokes), clarity


def main_components(mask: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Removes what is not part of the digit: specks, and what comes in from the picture's edge.

    Args:
        mask: bool [H, W], the ink.
        strength: float [H, W], how strong the ink is.

    Returns:
        bool [H, W].
    """
    from scipy import ndimage

    labels, boxes = find_components(mask)
    mass = ndimage.sum_labels(strength, labels, np.arange(1, len(boxes) + 1))
    inside = np.array([_is_inside(box, mask.shape) for box in boxes], bool)
    if inside.any() and mass[inside].max() > 0.3 * mass.max():
        mass = np.where(inside, mass, 0)
    kept = np.flatnonzero(mass >= 0.05 * mass.max()) + 1
    return np.isin(labels, kept)


def _is_inside(box: Box, shape: tuple[int, ...]) -> bool:
    return all(side.start > 0 and side.stop < size for side, size in zip(box, shape, strict=True))


def stroke_warnings(strokes: np.ndarray, clarity: float) -> tuple[str, ...]:
    """Returns reasons to doubt that strokes are a digit.

    The limits were set on photographs made from MNIST's validation digits: 2 of 300 exceed one,
    and so do 96 of 100 pictures of blank paper, all pictures of noise and of several digits, and
    half of the filled rectangles. Letters and scribbles are strokes too: only the network can doubt
    them, and it doubts 4 in 10 (`confidence_warnings`).

    Args:
        strokes: bool [h, w], cropped.
        clarity: as `find_strokes` returns it.
    """
    labels, boxes = find_components(strokes)
    areas = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    warnings = []
    if clarity < MIN_CLARITY:
        warnings.append("hardly any contrast between ink and paper")
    several = len(boxes) > 1 and areas[1] > MAX_SECOND * areas.sum()
    if several or len(boxes) > MAX_COMPONENTS:
        warnings.append("several separate shapes (mnistjax read reads rows of digits)")
    if stroke_width(strokes) * BOX / max(strokes.shape) > MAX_STROKE:
        warnings.append("a blot rather than strokes")
    return tuple(warnings)


def confidence_warnings(row: np.ndarray) -> tuple[str, ...]:
    """Returns a warning if a network is not sure of an image.

    Args:
        row: float [num_classes], the probabilities.
    """
    return ("the network is not sure",) if row.max() < MIN_CONFIDENCE else ()
