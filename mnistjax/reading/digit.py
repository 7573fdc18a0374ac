"""Recognizing one digit per picture, from the file to the prediction, in the order of the steps.

A picture is opened and reduced to gray. Its strokes are found, checked and redrawn as an image in
the format of MNIST, which the network classifies.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnistjax.data import DatasetInfo
from mnistjax.errors import DataFormatError
from mnistjax.reading import strangers
from mnistjax.reading.doubts import (
    MIN_CLARITY,
    PLAIN_CLARITY,
    SEVERAL,
    doubt_warnings,
    stroke_warnings,
)
from mnistjax.reading.gray import to_gray
from mnistjax.reading.ink import MIN_CONTRAST, find_digit_ink
from mnistjax.reading.mnist_format import is_like_mnist, normalize_strokes, to_mnist
from mnistjax.reading.network import check_image_shape, probabilities
from mnistjax.reading.pictures import Picture, load_upright, picture_name
from mnistjax.reading.planes import bounding_box, crop, find_components, is_inside
from mnistjax.reading.strokes import (
    MIN_EVIDENCE,
    Candidate,
    are_thin,
    best_candidate,
    evidence,
    find_candidates,
    smooth_plane,
)
from mnistjax.runs import TrainedModel


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedDigit:
    """A picture of a digit as the network sees it.

    Attributes:
        image: uint8 [28, 28, 1], light on dark.
        warnings: reasons to doubt that the picture shows a digit; empty if there are none.
        candidates: strokes of which one is probably the digit, where `image` is probably something
            else, such as the table beside a sheet; `predict` chooses one with the network.
    """

    image: np.ndarray
    warnings: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def images(self) -> list[np.ndarray]:
        """The images that the network is to compare: of the candidates, or of the one digit."""
        return [one.image for one in self.candidates] or [self.image]

    def choose(self, sure: np.ndarray) -> tuple[int, tuple[str, ...]]:
        """Chooses among `images`.

        Args:
            sure: float [N], the probability that each image is the digit it is taken for.

        Returns:
            The index of the best image, and the warnings about it.
        """
        if not self.candidates:
            return 0, self.warnings
        best, score = best_candidate(self.candidates, sure)
        one = self.candidates[best]
        found = evidence(one, score, float(sure[best])) >= MIN_EVIDENCE
        return best, stroke_warnings(one.strokes) + (() if found else ("no digit found",))


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a network for N pictures.

    Attributes:
        probabilities: float32 [N, num_classes]; each row sums to 1.
        class_names: the names of the classes.
        inputs: uint8 [N, H, W, C], the images that the network was given.
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

    Pictures are prepared by `open_picture` and `prepare_digit`; arrays are used as they are. What
    may be no digit gets a warning: see `stroke_warnings` and `doubt_warnings`.

    Args:
        trained: the network, as `load_weights` returns it.
        pictures: an array uint8 [N, H, W, C] of images like those the network was trained on; or
            one picture, or a sequence of pictures. A picture is the path of an image file, a
            `PIL.Image.Image` or what `prepare_digit` returned, of any size, color and EXIF
            orientation.

    Returns:
        The predictions, in the order of the pictures.

    Raises:
        DataFormatError: the array has the wrong shape or dtype; or a picture is missing, not an
            image, damaged, too large, empty or of one color. The message names the picture.
        ConfigError: pictures were given, and the network does not take images of shape
            (28, 28, 1).

    >>> import jax, mnistjax
    >>> images = np.zeros((2, 28, 28, 1), np.uint8)
    >>> model, info = mnistjax.create_model("mlp"), mnistjax.DatasetInfo("mine", 10)
    >>> variables = model.init(jax.random.key(0), mnistjax.scale_pixels(images))
    >>> predict(TrainedModel(model, variables, info), images).labels.shape
    (2,)
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
    several = [image for digit in prepared for image in digit.images]
    inputs = np.array(several, np.uint8).reshape(-1, *trained.info.image_shape)
    return interpret(trained.info, prepared, inputs, probabilities(trained, inputs))


def interpret(
    info: DatasetInfo, prepared: Sequence[PreparedDigit], inputs: np.ndarray, rows: np.ndarray
) -> Predictions:
    """Makes predictions of what a network says of prepared pictures.

    Args:
        info: the data set of the network.
        prepared: the pictures.
        inputs: uint8 [N, H, W, C], their `images` in order.
        rows: float32 [N, num_classes], the probabilities of these images.

    Returns:
        The predictions, one per picture: of each, the image is chosen that is most likely a digit.
    """
    sure = rows.max(axis=1)
    if strangers.knows(info) and len(rows) > len(prepared):
        sure = strangers.likeness(inputs, rows.argmax(axis=1))
    places: list[int] = []
    warnings: list[tuple[str, ...]] = []
    start = 0
    for digit in prepared:
        stop = start + len(digit.images)
        best, found = digit.choose(sure[start:stop])
        places.append(start + best)
        warnings.append(found)
        start = stop
    rows, inputs = rows[places], inputs[places]
    return Predictions(rows, info.class_names, inputs, doubt_warnings(info, inputs, rows, warnings))


def _checked_batch(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(images, np.ma.MaskedArray):
        raise DataFormatError("expected an array of images, found a masked array")
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
    """Opens a picture in any format, size and mode that Pillow reads, and reduces it to gray.

    The picture is rotated according to its EXIF orientation, and transparent parts get a plain
    background. Gray is not the luminance but the mixture of red, green and blue that has the most
    detail, so that red ink on green paper stands out too.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        float32 [H, W], about 0 to 1, with at most 2048 pixels on the longer side.

    Raises:
        DataFormatError: the file is missing, a folder, not an image, damaged or truncated, or the
            picture is empty or has more than 64 Mi pixels.

    >>> from PIL import Image
    >>> float(open_picture(Image.new("L", (40, 30), 51)).max())
    0.20000000298023224
    """
    return to_gray(load_upright(picture))


def prepare_digit(gray: np.ndarray, name: str = "the image") -> PreparedDigit:
    """Turns a picture of one digit into an image in the format of MNIST.

    The paper is estimated and subtracted, ink is separated from noise, specks are removed, and
    strokes that are far too thin or thick are redrawn. The image is cropped, scaled to a box of
    20x20 pixels and centered by its center of mass in 28x28 pixels, as MNIST's digits were (LeCun
    et al., 1998, https://doi.org/10.1109/5.726791). An image in this format is not changed.
    Where the ink that was found may be something else, the result has other candidates, too.

    Args:
        gray: float [H, W] of any range, or uint8 [H, W]; dark on light or light on dark.
        name: name of the picture in error messages.

    Returns:
        The image, with warnings if it may not show a digit.

    Raises:
        DataFormatError: the picture is not [H, W], empty, of one color, or has NaN pixels.

    >>> page = np.ones((90, 70))
    >>> page[20:70, 30:38] = 0
    >>> prepare_digit(page).image.shape
    (28, 28, 1)
    """
    gray = _checked(gray, name)
    if is_like_mnist(gray):
        return PreparedDigit(np.round(gray * 255).astype(np.uint8)[..., None])
    strokes, clarity, ink = find_strokes(gray)
    image, warnings = to_mnist(normalize_strokes(strokes)), stroke_warnings(strokes, clarity)
    plane = smooth_plane(gray)
    if _is_settled(plane, ink, clarity, warnings):
        return PreparedDigit(image, warnings)
    return PreparedDigit(image, warnings, tuple(find_candidates(plane)))


def _is_settled(
    plane: np.ndarray, ink: np.ndarray, clarity: float, warnings: tuple[str, ...]
) -> bool:
    """Returns whether the ink that was found is that of strokes, and no others need be found."""
    if not is_inside(bounding_box(ink), ink.shape):
        return False
    is_clear = clarity >= MIN_CLARITY or SEVERAL in warnings
    return clarity >= PLAIN_CLARITY or (is_clear and are_thin(plane, ink))


def _checked(gray: np.ndarray, name: str) -> np.ndarray:
    if gray.ndim != 2 or not gray.size:
        raise DataFormatError(f"expected a picture [H, W], found shape {gray.shape}: {name}")
    gray = gray.astype(np.float32) / (255 if gray.dtype == np.uint8 else 1)
    if not float(np.ptp(gray)) >= MIN_CONTRAST:  # Refuses pictures with NaN too.
        raise DataFormatError(f"expected a picture of a digit, found one color only: {name}")
    return gray


def find_strokes(gray: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Finds the strokes of the digit in a picture of one digit.

    If the digit is small in the picture, it is analyzed again in a section around it.

    Args:
        gray: float [H, W].

    Returns:
        (strokes, clarity, ink): bool [h, w], cropped; the distance between ink and paper in
        standard deviations of the paper; and bool [H', W'] with a longer side of `DIGIT_SIDE`
        pixels, where the strokes are in the picture.
    """
    mask, strength, clarity = find_digit_ink(gray)
    strokes = ink = main_components(mask, strength)
    box = bounding_box(strokes)
    size = max(side.stop - side.start for side in box)
    if size <= 0.5 * max(strokes.shape):
        scale = max(gray.shape) / max(strokes.shape)
        low = [max(0, int((side.start - 0.3 * size) * scale)) for side in box]
        high = [int((side.stop - 1 + 0.3 * size) * scale) + 1 for side in box]
        mask, strength, _ = find_digit_ink(gray[low[0] : high[0], low[1] : high[1]])
        strokes = main_components(mask, strength)
    return crop(strokes), clarity, ink


def main_components(mask: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Removes ink that is not part of the digit: specks, and components that touch the edges.

    Args:
        mask: bool [H, W], the ink.
        strength: float [H, W], how much each pixel differs from the paper.

    Returns:
        bool [H, W], the ink of the digit.
    """
    from scipy import ndimage

    labels, boxes = find_components(mask)
    mass = ndimage.sum_labels(strength, labels, np.arange(1, len(boxes) + 1))
    inside = np.array([is_inside(box, mask.shape) for box in boxes], bool)
    if inside.any() and mass[inside].max() > 0.3 * mass.max():
        mass = np.where(inside, mass, 0)
    # Where the estimate of the paper fails, all of the ink may be on its other side.
    kept = np.flatnonzero(mass >= min(0.05 * mass.max(), mass.max())) + 1
    return np.isin(labels, kept)
