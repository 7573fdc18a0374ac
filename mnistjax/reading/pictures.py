"""Opening pictures: whatever Pillow reads, upright, on a plain ground, as one plane of grey."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mnistjax.errors import DataFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

PathLike = str | os.PathLike[str]
Picture: TypeAlias = "PathLike | Image"

MOST_PIXELS = 64 * 2**20
"""Larger pictures are refused before they are decoded: they may be decompression bombs."""

LONGEST_SIDE = 2048
"""Pictures are reduced to this many pixels: digits of a page are still large enough."""

# What Pillow's readers raise on damaged files.
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, MemoryError, struct.error, zlib.error),
)

_DEEP = ("I", "F")  # Modes of more than eight bits a pixel, of which the range is not known.


def open_picture(picture: Picture) -> np.ndarray:
    """Opens a picture of any format, size and mode that Pillow knows, as one grey plane.

    It is turned as its EXIF data says and put on a plain ground where it is transparent. Grey is
    not luminance but the mixture of red, green and blue in which the picture has the most detail,
    so that red ink on green paper stands out too.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        float32 [H, W], about 0 to 1, at most `LONGEST_SIDE` pixels long.

    Raises:
        DataFormatError: the file is missing, a folder, no image, damaged, cut off, or has more
            than `MOST_PIXELS` pixels.
    """
    return to_grey(load_upright(picture))


def picture_name(picture: Picture) -> str:
    """Returns how error messages call a picture: its path, or "the image"."""
    if isinstance(picture, str | os.PathLike):
        return str(os.fspath(picture))
    return str(getattr(picture, "filename", "")) or "the image"


def load_upright(picture: Picture) -> Image:
    """Decodes a picture and turns it as its EXIF data says.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        A `PIL.Image.Image` of the file's own mode and size.

    Raises:
        DataFormatError: as `open_picture`.
    """
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    name = picture_name(picture)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Images.DecompressionBombWarning)
            if isinstance(picture, Images.Image):
                return _decoded(picture, name)
            _check_file(picture)
            file = stack.enter_context(open(picture, "rb"))  # Pillow leaves damaged files open.
            return _decoded(Images.open(file), name)
    except DataFormatError:
        raise
    except (Images.DecompressionBombWarning, Images.DecompressionBombError) as error:
        raise DataFormatError(f"expected an image of sane size, found {name}: {error}") from None
    except UnidentifiedImageError:
        raise DataFormatError(f"expected an image, found a file of another kind: {name}") from None
    except _DAMAGES as error:
        raise DataFormatError(f"expected a sound image, found {name}: {error}") from None


def _check_file(path: PathLike) -> None:
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no file"
        raise DataFormatError(f"expected an image file, found {found} at {os.fspath(path)}")


def _decoded(image: Image, name: str) -> Image:
    from PIL import ImageOps

    _check_size(image.size, name)
    image.load()
    return ImageOps.exif_transpose(image)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataFormatError(
            f"expected an image of at most {MOST_PIXELS:,} pixels, found {width:,} x {height:,} "
            f"in {name}"
        )
    if not width * height:
        raise DataFormatError(f"expected an image, found {width} x {height} pixels in {name}")


def to_grey(image: Image, longest: int = LONGEST_SIDE) -> np.ndarray:
    """Reduces a picture to one grey plane.

    Args:
        image: a `PIL.Image.Image`, upright.
        longest: most pixels that a side of the result may have.

    Returns:
        float32 [H, W], about 0 to 1.
    """
    if image.mode == "LAB":  # Pillow converts it to nothing else.
        image = image.getchannel(0)
    if image.mode.startswith(_DEEP):
        return resize(_unit_range(np.asarray(image, np.float32)), longest=longest)
    if image.has_transparency_data:
        colours = _on_plain_ground(_reduced(image.convert("RGBA"), longest))
    elif image.mode in ("1", "L"):
        return np.asarray(_reduced(image.convert("L"), longest), np.float32) / 255
    else:
        colours = np.asarray(_reduced(image.convert("RGB"), longest), np.float32) / 255
    return _most_detailed_mixture(colours)


def _reduced(image: Image, longest: int) -> Image:
    if max(image.size) <= longest:
        return image
    image = image.copy()
    image.thumbnail((longest, longest))
    return image


def _unit_range(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _on_plain_ground(image: Image) -> np.ndarray:
    """Composes an RGBA picture over the ground that shows it best.

    A drawing in one colour gets black or white, whichever differs more from it. A photograph with
    transparent corners gets its own median colour, which adds no edge that could pass for ink.
    """
    pixels = np.asarray(image, np.float32) / 255
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    opaque = colours[alpha[..., 0] > 0.5]
    ground: np.ndarray = np.ones(3, np.float32)
    if len(opaque):
        middle = np.median(opaque, axis=0)
        one_colour = np.abs(opaque - middle).mean() < 0.05
        if one_colour or 2 * len(opaque) < alpha.size:
            ground *= middle.mean() < 0.5
        else:
            ground = middle
    return ground + (colours - ground) * alpha


def _most_detailed_mixture(colours: np.ndarray) -> np.ndarray:
    """Projects colours [H, W, 3] on the direction in which they differ most from what is near."""
    from scipy import ndimage

    step = max(1, max(colours.shape) // 128)
    small = colours[::step, ::step]
    width = max(small.shape) / 8
    detail = (small - ndimage.gaussian_filter(small, (width, width, 0))).reshape(-1, 3)
    weights = np.linalg.eigh(detail.T @ detail)[1][:, -1]
    weights = weights * (np.sign(weights.sum()) or 1) / np.abs(weights).sum()
    return (colours @ weights).astype(np.float32)


def resize(
    plane: np.ndarray, *, longest: int | None = None, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Resizes a plane, averaging where it shrinks and bending smoothly where it grows.

    Args:
        plane: float [H, W].
        longest: most pixels that a side may have; smaller planes stay as they are.
        shape: the new (height, width), instead of `longest`.

    Returns:
        float32 of the new shape.
    """
    from PIL import Image as Images

    height, width = plane.shape
    if shape is None:
        factor = min(1.0, (longest or LONGEST_SIDE) / max(height, width))
        shape = max(1, round(height * factor)), max(1, round(width * factor))
    image = Images.fromarray(np.ascontiguousarray(plane, np.float32))
    grows = shape[0] > height
    way = Images.Resampling.BICUBIC if grows else Images.Resampling.BOX
    return np.asarray(image.resize(shape[::-1], way))
