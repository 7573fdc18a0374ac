"""Opening pictures in any format that Pillow reads."""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mnistjax.errors import DataFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

PathLike = str | os.PathLike[str]
Picture: TypeAlias = "PathLike | Image"
"""The path of an image file, or a `PIL.Image.Image`."""

# `warnings.catch_warnings` changes a list of the whole process, so only one thread may be in it.
_WARNINGS = threading.Lock()

MAX_PIXELS = 64 * 2**20
"""Larger pictures are rejected before they are decoded, because they may be decompression bombs."""

# What Pillow's readers raise on damaged files.
DAMAGES = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, MemoryError, struct.error, zlib.error),
)


def load_upright(picture: Picture) -> Image:
    """Decodes a picture and rotates it according to its EXIF orientation.

    Args:
        picture: the path of a file, or a `PIL.Image.Image`.

    Returns:
        A `PIL.Image.Image` in the mode and size of the file.

    Raises:
        DataFormatError: the file is missing, a folder, not an image, damaged or truncated, or the
            picture is empty, has more than `MAX_PIXELS` pixels or is neither a path nor an image.
    """
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    name = picture_name(picture)
    try:
        with _WARNINGS, warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Images.DecompressionBombWarning)
            if isinstance(picture, Images.Image):
                return _decoded(picture, name)
            _check_file(picture)
            file = stack.enter_context(open(picture, "rb"))  # Pillow leaves damaged files open.
            return _decoded(Images.open(file, formats=_formats()), name)
    except DataFormatError:
        raise
    except (Images.DecompressionBombWarning, Images.DecompressionBombError) as error:
        raise DataFormatError(f"expected an image of sane size, found {name}: {error}") from None
    except UnidentifiedImageError:
        raise DataFormatError(f"expected an image, found a file of another kind: {name}") from None
    except DAMAGES as error:
        raise DataFormatError(f"expected a sound image, found {name}: {error}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """All formats that Pillow decodes itself; it would run EPS as a program, with Ghostscript."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name != "EPS")


def picture_name(picture: Picture) -> str:
    """Returns the name of a picture in error messages: its path, or "the image"."""
    if isinstance(picture, str | os.PathLike):
        return str(os.fspath(picture))
    return str(getattr(picture, "filename", "")) or "the image"


def _check_file(path: PathLike) -> None:
    if not isinstance(path, str | os.PathLike):
        raise DataFormatError(
            "expected the path of an image file or a PIL.Image.Image, which PIL.Image.fromarray "
            f"makes of an array, found {type(path).__name__}"
        )
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
    if width * height > MAX_PIXELS:
        raise DataFormatError(
            f"expected an image of at most {MAX_PIXELS:,} pixels, found {width:,} x {height:,} "
            f"in {name}"
        )
    if not width * height:
        raise DataFormatError(f"expected an image, found {width} x {height} pixels in {name}")
