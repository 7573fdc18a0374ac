"""Strict reader of IDX, the file format in which MNIST and similar data sets are published.

A damaged, truncated or unrelated file raises an error instead of giving wrong pixels.
The format is described at the end of http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnistjax.data.gzipped import (
    MAX_BYTES,
    PathLike,
    decompress,
    decompress_start,
    read_file,
)
from mnistjax.errors import DataFormatError, DatasetNotFoundError

Pair = tuple[np.ndarray, np.ndarray]

_UNSIGNED_BYTE = 0x08
_MAX_RANK = 4
_MAX_HEADER = 4 + 4 * _MAX_RANK


class IdxFiles(NamedTuple):
    """The four files of a data set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def read_idx_folder(folder: PathLike, prefix: str = "") -> tuple[Pair, Pair]:
    """Reads the four IDX files of a data set.

    Args:
        folder: the folder that holds them.
        prefix: the start of their names, for example "emnist-letters-".

    Returns:
        (train, test), each (images, labels): uint8 [N, H, W, 1] and int32 [N].

    Raises:
        DatasetNotFoundError: if the folder holds none of them.
        DataFormatError: if some are missing, or one cannot be read.
    """
    files = find_idx_files(folder, prefix)
    if files is None:
        names = ", ".join(
            _file_names(prefix, split, kind)[1]
            for split in ("train", "test")
            for kind in ("images", "labels")
        )
        raise DatasetNotFoundError(f"expected the files {names}, found none of them in {folder}")
    return read_idx_files(files)


def find_idx_files(folder: PathLike, prefix: str = "") -> IdxFiles | None:
    """Finds the four IDX files of a data set.

    Both spellings are accepted, `train-images-idx3-ubyte` and `train-images.idx3-ubyte`, with or
    without `.gz`, and with `test` or `t10k`.

    Args:
        folder: where to look.
        prefix: the start of their names, for example "emnist-letters-".

    Returns:
        The paths, or None if the folder holds none of them.

    Raises:
        DataFormatError: if it holds only some of them; the message names a missing one.
    """
    found = {
        f"{split}_{kind}": _find_file(Path(folder), prefix, split, kind)
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    files = {name: path for name, path in found.items() if path}
    if files and len(files) < 4:
        missing = next(name for name, path in found.items() if not path)
        expected = _file_names(prefix, *missing.split("_"))[1]
        raise DataFormatError(f"expected four IDX files in {folder}, found no {expected}")
    return IdxFiles(**files) if files else None


def _find_file(folder: Path, prefix: str, split: str, kind: str) -> Path | None:
    paths = (folder / name for name in _file_names(prefix, split, kind))
    return next((path for path in paths if path.is_file()), None)


def _file_names(prefix: str, split: str, kind: str) -> list[str]:
    rank = {"images": 3, "labels": 1}[kind]
    return [
        f"{prefix}{stem}-{kind}{mark}idx{rank}-ubyte{suffix}"
        for stem in {"train": ("train",), "test": ("t10k", "test")}[split]
        for mark in ("-", ".")
        for suffix in ("", ".gz")
    ]


def read_idx_files(files: IdxFiles) -> tuple[Pair, Pair]:
    """Reads the files that `find_idx_files` has found.

    Args:
        files: the four paths.

    Returns:
        (train, test), each (images, labels): uint8 [N, H, W, 1] and int32 [N].

    Raises:
        DatasetNotFoundError: if a file is missing.
        DataFormatError: if a file cannot be read, or images and labels do not belong together.
    """

    def read_pair(images: Path, labels: Path) -> Pair:
        return decode_idx_pair(read_file(images), read_file(labels), str(images), str(labels))

    return (
        read_pair(files.train_images, files.train_labels),
        read_pair(files.test_images, files.test_labels),
    )


def decode_idx_pair(images: bytes, labels: bytes, images_name: str, labels_name: str) -> Pair:
    """Decodes images and their labels.

    Args:
        images: content of an IDX file of rank 3, plain or compressed by gzip.
        labels: content of an IDX file of rank 1, plain or compressed by gzip.
        images_name: the name of the file with the images, for error messages.
        labels_name: the name of the file with the labels, for error messages.

    Returns:
        (images, labels): uint8 [N, H, W, 1] and int32 [N], N >= 1.

    Raises:
        DataFormatError: if one is not an IDX file, or the two are swapped, differ in length, or
            are empty.
    """
    pixels, classes = decode_idx(images, images_name), decode_idx(labels, labels_name)
    if (pixels.ndim, classes.ndim) == (1, 3):
        raise DataFormatError(
            f"expected images in {images_name} and labels in {labels_name}, "
            f"found them swapped: the first holds labels, the second images"
        )
    _check_rank(pixels, 3, "images", images_name)
    _check_rank(classes, 1, "labels", labels_name)
    if len(pixels) != len(classes):
        raise DataFormatError(
            f"expected as many labels as images, found {len(pixels)} images in {images_name} "
            f"and {len(classes)} labels in {labels_name}"
        )
    if pixels.size == 0:
        raise DataFormatError(
            f"expected at least one image, found shape {pixels.shape} in {images_name}"
        )
    return pixels[..., None], classes.astype(np.int32)


def _check_rank(array: np.ndarray, rank: int, kind: str, where: str) -> None:
    if array.ndim != rank:
        raise DataFormatError(
            f"expected {kind} (IDX magic 0x{0x800 + rank:08x}), "
            f"found 0x{0x800 + array.ndim:08x} in {where}"
        )


def decode_idx(data: bytes, where: str) -> np.ndarray:
    """Decodes the content of one IDX file of unsigned bytes.

    Args:
        data: the content, plain or compressed by gzip.
        where: the name of the file, for error messages.

    Returns:
        Read-only uint8 array of the shape given in the header.

    Raises:
        DataFormatError: if the data is damaged, cut off, too long, or not IDX of unsigned bytes.

    Example:
        >>> decode_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]), "three labels")
        array([7, 2, 1], dtype=uint8)
    """
    start, shape = _decode_header(decompress_start(data, where, _MAX_HEADER), where)
    # A few bytes may unpack to gigabytes: no more is unpacked than the header says.
    expected = start + math.prod(shape)
    data = decompress(data, where, limit=min(expected, MAX_BYTES))
    if len(data) != expected:
        raise DataFormatError(
            f"expected {math.prod(shape)} bytes of data for shape {shape}, "
            f"found {len(data) - start} in {where}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _decode_header(data: bytes, where: str) -> tuple[int, tuple[int, ...]]:
    """Returns the length of the header of an IDX file, and the shape that it gives."""
    if len(data) < 4:
        raise DataFormatError(
            f"expected an IDX header of at least 4 bytes, found {len(data)} bytes in {where}"
        )
    magic, kind, rank = int.from_bytes(data[:4]), data[2], data[3]
    if magic >> 16 or not 1 <= rank <= _MAX_RANK:
        raise DataFormatError(
            f"expected the IDX magic 0x000008NN (NN dimensions, 1 to {_MAX_RANK}), "
            f"found 0x{magic:08x} in {where}"
        )
    if kind != _UNSIGNED_BYTE:
        raise DataFormatError(
            f"expected IDX of unsigned bytes (type 0x08), found type 0x{kind:02x} in {where}"
        )
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataFormatError(
            f"expected an IDX header of {start} bytes, found {len(data)} bytes in {where}"
        )
    shape = tuple(int.from_bytes(data[i : i + 4]) for i in range(4, start, 4))
    # Also without data: NumPy cannot describe an array of 0 x 2^32 x 2^32 bytes.
    if math.prod(max(size, 1) for size in shape) > MAX_BYTES:
        raise DataFormatError(
            f"expected at most {MAX_BYTES:,} bytes of data, found shape {shape} in {where}"
        )
    return start, shape
