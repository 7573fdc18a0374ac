"""Reads a folder of pictures with one subfolder per class, strictly."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnistjax.data.splits import MAX_PIXELS
from mnistjax.errors import DataFormatError
from mnistjax.files import printable

Pair = tuple[np.ndarray, np.ndarray]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_GRAY = ("1", "L")
# Others have more than 8 bits per channel, or need a background.
_MODES = (*_GRAY, "P", "RGB", "CMYK", "YCbCr")

# What Pillow's readers raise on damaged files.
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, MemoryError, struct.error, zlib.error),
)


class Pictures(NamedTuple):
    """The files of one split.

    Attributes:
        class_names: the names of the subfolders, sorted.
        files: the picture files, sorted.
        labels: int32 [N], the place of each file's subfolder among the class names.
    """

    class_names: tuple[str, ...]
    files: list[Path]
    labels: np.ndarray


def find_pictures(folder: Path, class_names: Sequence[str] | None = None) -> Pictures | None:
    """Finds the pictures in the subfolders of a folder.

    Args:
        folder: the folder. Files and folders whose names begin with a dot are ignored.
        class_names: the names that subfolders may have; None allows any.

    Returns:
        The pictures, or None if no subfolder holds any.

    Raises:
        DataFormatError: a subfolder is none of the classes, or its name is not printable.
    """
    found = {
        sub.name: sorted(
            file
            for file in sub.iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".")
    }
    found = {name: files for name, files in found.items() if files}
    if not found:
        return None
    names = tuple(class_names or found)
    for name in found:
        if name not in names:
            raise DataFormatError(
                f"expected folders of the classes {', '.join(names)} in {folder}, "
                f"found {printable(name)}"
            )
        if not name.isprintable():
            raise DataFormatError(f"expected printable names of classes, found {name!r}")
    files = [file for name in names for file in found.get(name, [])]
    labels = [label for label, name in enumerate(names) for _ in found.get(name, [])]
    return Pictures(names, files, np.array(labels, np.int32))


def read_pictures(*splits: Pictures) -> list[Pair]:
    """Decodes the pictures of all splits: gray if all of them are gray, else with three channels.

    Args:
        *splits: the files of each split.

    Returns:
        For each split images uint8 [N, H, W, C] and labels int32 [N].

    Raises:
        DataFormatError: a file is damaged or no picture, has transparency or more than 8 bits per
            channel, or the pictures differ in size.
    """
    everything = [file for split in splits for file in split.files]
    shapes = [_describe(file) for file in everything]
    size = shapes[0][0]
    for file, (found, _) in zip(everything, shapes, strict=True):
        if found != size:
            raise DataFormatError(
                f"expected pictures of one size, found {size[0]}x{size[1]} pixels in "
                f"{everything[0]} and {found[0]}x{found[1]} in {file}"
            )
    mode = "L" if all(mode in _GRAY for _, mode in shapes) else "RGB"
    pairs = []
    for split in splits:
        images = np.empty((len(split.files), size[1], size[0], len(mode)), np.uint8)
        for row, file in zip(images, split.files, strict=True):
            row[:] = _decode(file, mode).reshape(row.shape)
        pairs.append((images, split.labels))
    return pairs


def _describe(file: Path) -> tuple[tuple[int, int], str]:
    """Returns width and height, and the mode; the header is enough for this."""
    picture = _open(file)
    with picture:
        width, height = picture.size
        if not 0 < width * height * 3 <= MAX_PIXELS:
            raise DataFormatError(
                f"expected a picture of at most {MAX_PIXELS // 3:,} pixels, "
                f"found {width}x{height} in {file}"
            )
        if picture.mode not in _MODES or picture.has_transparency_data:
            raise DataFormatError(
                "expected a gray or RGB picture of 8 bits per channel without transparency, "
                f"found mode {picture.mode} in {file}"
            )
        return (width, height), picture.mode


def _decode(file: Path, mode: str) -> np.ndarray:
    picture = _open(file)
    try:
        with picture:
            return np.asarray(picture.convert(mode))
    except _DAMAGES as error:
        raise _damage(file, error) from error


def _open(file: Path) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # The size is checked before anything is decoded.
            warnings.simplefilter("ignore")
            return Image.open(file, formats=_FORMATS)
    except (*_DAMAGES, Image.DecompressionBombError) as error:
        raise _damage(file, error) from error


def _damage(file: Path, error: BaseException) -> DataFormatError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataFormatError(f"expected a picture in {file}: {reason}")
