"""Reading the body of a request, strictly: pixels as JSON, or an image file."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mnistjax.errors import DataFormatError
from mnistjax.files import parse_json
from mnistjax.reading import PreparedDigit, open_picture, prepare_digit
from mnistjax.reading.mnist_format import SIDE
from mnistjax.reading.pictures import DAMAGES, load_upright
from mnistjax.serving.limits import Limits, RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

JSON = "application/json"
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""The formats of image files, by content type; every decoder is one more that may be attacked."""

_BAD_REQUEST, _TOO_LARGE, _UNSUPPORTED, _UNPROCESSABLE = 400, 413, 415, 422


def parse_pixels(body: bytes, image_shape: tuple[int, ...], max_images: int) -> np.ndarray:
    """Parses `{"pixels": ...}`: one image or a list of images.

    Args:
        body: JSON. An image is [H, W, C] nested lists of whole numbers from 0 to 255, or [H, W] if
            there is one channel.
        image_shape: (H, W, C) of the images of the network.
        max_images: the largest number of images.

    Returns:
        uint8 [N, H, W, C], N from 1 to `max_images`.

    Raises:
        RequestError: the body is not JSON, has other keys, or its pixels are not such images. The
            message names what was found.

    >>> parse_pixels(b'{"pixels": [[0, 255]]}', (1, 2, 1), max_images=9).tolist()
    [[[[0], [255]]]]
    """
    try:
        content = parse_json(body)
    except ValueError as error:
        raise RequestError(_BAD_REQUEST, f"expected JSON: {error}") from None
    if not isinstance(content, dict) or content.keys() != {"pixels"}:
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else "another value"
        raise RequestError(
            _UNPROCESSABLE, f'expected an object with the one key "pixels", found {found}'
        )
    pixels = content["pixels"]
    shape = _shape_of(pixels)
    batch_shape = _batch_shape(shape, image_shape)
    if batch_shape[0] > max_images:
        raise RequestError(
            _TOO_LARGE, f"expected at most {max_images} images in a request, found {batch_shape[0]}"
        )
    # To Python, true and false are whole numbers.
    wrong = next((word for word in ("true", "false") if word.encode() in body), None)
    try:
        packed = _pack(pixels, shape)
    except (TypeError, ValueError):
        wrong = wrong or _first_wrong(pixels)
    if wrong is not None:
        raise RequestError(
            _UNPROCESSABLE,
            f"expected pixels that are whole numbers from 0 to 255, in rows of one length, "
            f"found {wrong}",
        )
    return np.frombuffer(packed, np.uint8).reshape(batch_shape)


def _shape_of(values: Any) -> tuple[int, ...]:
    """Returns the shape of nested lists, from the first of each."""
    shape = []
    while type(values) is list:
        shape.append(len(values))
        values = values[0] if values else None
    return tuple(shape)


def _batch_shape(found: tuple[int, ...], image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape [N, H, W, C] of pixels that are one image or several."""
    shapes = [image_shape] if image_shape[-1] > 1 else [image_shape, image_shape[:-1]]
    for shape in shapes:
        if found == shape:
            return (1, *image_shape)
    for shape in shapes:
        if found[1:] == shape and found[0]:
            return (found[0], *image_shape)
    expected = " or ".join(str(list(shape)) for shape in shapes)
    raise RequestError(
        _UNPROCESSABLE,
        f"expected pixels of one image {expected}, or of several in a list, "
        f"found shape {list(found)}",
    )


def _pack(values: Any, shape: tuple[int, ...]) -> bytes:
    """Returns nested lists of this shape as bytes, several times faster than NumPy does.

    Raises:
        ValueError: a list is of another length, or a number is not in range(256).
        TypeError: something else is in the place of a list or of a number.
    """
    if type(values) is not list:
        raise TypeError
    if len(values) != shape[0]:
        raise ValueError
    if len(shape) == 1:
        return bytes(values)
    return b"".join([_pack(value, shape[1:]) for value in values])


def _first_wrong(values: Any) -> str:
    """Returns what is no pixel in nested lists, for an error message."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if type(value) is list:
            waiting += reversed(value)
        elif type(value) is not int or not 0 <= value <= 255:
            text = json.dumps(value)
            return text if len(text) <= 40 else f"{text[:40]}..."
    return "rows of different length"


def open_image(body: bytes, content_type: str, limits: Limits) -> Image:
    """Opens an image file without decoding its pixels.

    Args:
        body: the file.
        content_type: a key of `FORMATS`.
        limits: the bounds, of which `picture_pixels` is checked.

    Returns:
        A `PIL.Image.Image` that is decoded when it is used.

    Raises:
        RequestError: the file is of another format or damaged, or it has too many pixels.
    """
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    try:
        image = Images.open(io.BytesIO(body), formats=[FORMATS[content_type]])
    except UnidentifiedImageError:
        raise RequestError(
            _UNSUPPORTED, f"expected {content_type}, found a file of another kind"
        ) from None
    except (Images.DecompressionBombError, Images.DecompressionBombWarning):
        raise RequestError(_TOO_LARGE, _too_many(limits, "far more")) from None
    except DAMAGES as error:
        raise RequestError(_UNPROCESSABLE, f"expected a sound image: {error}") from None
    width, height = image.size
    if width * height > limits.picture_pixels:
        raise RequestError(_TOO_LARGE, _too_many(limits, f"{width:,} x {height:,}"))
    return image


def _too_many(limits: Limits, found: str) -> str:
    return f"expected an image of at most {limits.picture_pixels:,} pixels, found {found}"


def prepare_image(image: Image, image_shape: tuple[int, ...]) -> PreparedDigit:
    """Turns a picture into an image for the network.

    A picture for a network that reads 28x28 gray images is prepared by `prepare_digit`. For other
    networks it must have their size; its colors are converted to their channels.

    Args:
        image: the picture.
        image_shape: (H, W, C) of the images of the network.

    Returns:
        The image, uint8 [H, W, C], with warnings if it may not show a digit.

    Raises:
        DataFormatError: the picture is damaged, of one color or of another size.
    """
    if image_shape == (SIDE, SIDE, 1):
        return prepare_digit(open_picture(image))
    height, width, channels = image_shape
    upright = load_upright(image)
    if upright.size != (width, height):
        raise DataFormatError(
            f"expected an image of {width} x {height} pixels, as the network takes them, "
            f"found {upright.width} x {upright.height}"
        )
    converted = upright.convert("RGB" if channels == 3 else "L")
    return PreparedDigit(np.asarray(converted).reshape(image_shape))
