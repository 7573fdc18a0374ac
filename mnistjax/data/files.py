"""Strict readers of the files that the MNIST family comes in: IDX and Kaggle's CSV.

A file that is damaged, cut off or of another kind raises; it never gives wrong pixels.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnistjax.errors import DataFormatError, DatasetNotFoundError

PathLike = str | os.PathLike[str]
Pair = tuple[np.ndarray, np.ndarray]

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_PIXELS = tuple(f"pixel{i}" for i in range(784))
_ROW_BY_COLUMN = tuple(f"{row}x{column}" for row in range(1, 29) for column in range(1, 29))


class IdxFiles(NamedTuple):
    """The four files of a data set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def read_idx(path: PathLike) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: the file, plain or compressed by gzip; its content decides, not its name.

    Returns:
        uint8 array of the rank and the shape that the header names, read-only.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataFormatError: if the file is damaged, cut off, too long, or no IDX of unsigned bytes.
    """
    return decode_idx(_read_bytes(Path(path)), str(path))


def decode_idx(data: bytes, where: str) -> np.ndarray:
    """Decodes the bytes of an IDX file.

    Args:
        data: the content, plain or compressed by gzip.
        where: the name of the file, for error messages.

    Returns:
        uint8 array of the rank and the shape that the header names, read-only.

    Raises:
        DataFormatError: as `read_idx`.
    """
    if data.startswith(_GZIP_MAGIC):
        data = _gunzip(data, where)
    if len(data) < 4:
        raise DataFormatError(
            f"expected an IDX header of at least 4 bytes, found {len(data)} bytes in {where}"
        )
    magic, kind, rank = int.from_bytes(data[:4]), data[2], data[3]
    if magic >> 16 or rank == 0:
        raise DataFormatError(
            f"expected the IDX magic 0x000008NN (NN dimensions), found 0x{magic:08x} in {where}"
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
    if len(data) - start != math.prod(shape):
        raise DataFormatError(
            f"expected {math.prod(shape)} bytes of data for shape {shape}, "
            f"found {len(data) - start} in {where}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetNotFoundError(f"expected a data file, found none at {path}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: PathLike, error: OSError) -> DataFormatError:
    return DataFormatError(f"expected a readable data file, found {path}: {error.strerror}")


def _gunzip(data: bytes, where: str) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:
        raise DataFormatError(
            f"expected a whole gzip file, found one that is cut off, {where}"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"expected a sound gzip file, found a damaged one, {where}: {error}"
        ) from None


def read_idx_pair(images_path: PathLike, labels_path: PathLike) -> Pair:
    """Reads images and their labels.

    Args:
        images_path: IDX file of rank 3.
        labels_path: IDX file of rank 1.

    Returns:
        (images, labels): uint8 [N, H, W, 1] and int32 [N], N >= 1.

    Raises:
        DatasetNotFoundError: if a file is missing.
        DataFormatError: if a file cannot be read, the two are swapped, do not match, or are empty.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    return pair_idx(images, labels, str(images_path), str(labels_path))


def pair_idx(images: np.ndarray, labels: np.ndarray, images_name: str, labels_name: str) -> Pair:
    """Checks that decoded images and labels belong together.

    Args:
        images: uint8 [N, H, W].
        labels: uint8 [N].
        images_name: the file that the images came from, for error messages.
        labels_name: the same for the labels.

    Returns:
        (images, labels): uint8 [N, H, W, 1] and int32 [N].

    Raises:
        DataFormatError: as `read_idx_pair`.
    """
    if (images.ndim, labels.ndim) == (1, 3):
        raise DataFormatError(
            f"expected images in {images_name} and labels in {labels_name}, "
            f"found them swapped: the first holds labels, the second images"
        )
    _check_rank(images, 3, "images", images_name)
    _check_rank(labels, 1, "labels", labels_name)
    if len(images) != len(labels):
        raise DataFormatError(
            f"expected as many labels as images, found {len(images)} images in {images_name} "
            f"and {len(labels)} labels in {labels_name}"
        )
    if images.size == 0:
        raise DataFormatError(
            f"expected at least one image, found shape {images.shape} in {images_name}"
        )
    return images[..., None], labels.astype(np.int32)


def _check_rank(array: np.ndarray, rank: int, kind: str, where: str) -> None:
    if array.ndim != rank:
        raise DataFormatError(
            f"expected {kind} (IDX magic 0x{0x800 + rank:08x}), "
            f"found 0x{0x800 + array.ndim:08x} in {where}"
        )


def find_idx_files(folder: PathLike, prefix: str = "") -> IdxFiles | None:
    """Finds the four IDX files of a data set.

    Both spellings are known, `train-images-idx3-ubyte` and `train-images.idx3-ubyte`, plain or
    with `.gz`, and `test` as well as `t10k`.

    Args:
        folder: where to look.
        prefix: what the names begin with, for example "emnist-letters-".

    Returns:
        The paths, or None if the folder holds none of them.

    Raises:
        DataFormatError: if it holds some of them only; the message names a missing one.
    """
    found = {
        f"{split}_{kind}": _find_idx_file(Path(folder), prefix, split, kind)
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    files = {name: path for name, path in found.items() if path}
    if files and len(files) < 4:
        missing = next(name for name, path in found.items() if not path)
        expected = _idx_names(prefix, *missing.split("_"))[1]
        raise DataFormatError(f"expected four IDX files in {folder}, found no {expected}")
    return IdxFiles(**files) if files else None


def _find_idx_file(folder: Path, prefix: str, split: str, kind: str) -> Path | None:
    paths = (folder / name for name in _idx_names(prefix, split, kind))
    return next((path for path in paths if path.is_file()), None)


def _idx_names(prefix: str, split: str, kind: str) -> list[str]:
    rank = {"images": 3, "labels": 1}[kind]
    return [
        f"{prefix}{stem}-{kind}{mark}idx{rank}-ubyte{suffix}"
        for stem in {"train": ("train",), "test": ("t10k", "test")}[split]
        for mark in ("-", ".")
        for suffix in ("", ".gz")
    ]


def read_idx_folder(folder: PathLike, prefix: str = "") -> tuple[Pair, Pair]:
    """Reads the four IDX files of a data set.

    Args:
        folder: the folder that holds them.
        prefix: what their names begin with, for example "emnist-letters-".

    Returns:
        (train, test), each (images, labels): uint8 [N, H, W, 1] and int32 [N].

    Raises:
        DatasetNotFoundError: if the folder holds none of them.
        DataFormatError: if some are missing, or one cannot be read.
    """
    files = find_idx_files(folder, prefix)
    if files is None:
        names = ", ".join(
            _idx_names(prefix, split, kind)[1]
            for split in ("train", "test")
            for kind in ("images", "labels")
        )
        raise DatasetNotFoundError(f"expected the files {names}, found none of them in {folder}")
    return (
        read_idx_pair(files.train_images, files.train_labels),
        read_idx_pair(files.test_images, files.test_labels),
    )


def read_kaggle_csv(path: PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a CSV file of 28x28 images, one a row, as Kaggle's digit recognizer has them.

    Args:
        path: the file, plain or compressed by gzip. Its header is `label,pixel0,...,pixel783` or
            `label,1x1,1x2,...,28x28`, or one of these without `label`.

    Returns:
        (images, labels): uint8 [N, 28, 28, 1] and int32 [N], or None for unlabelled images.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataFormatError: if the header is another, a row has another number of columns, a value is
            no integer from 0 to 255, or the file is cut off; the message names line and column.
    """
    data = _read_bytes(Path(path))
    if data.startswith(_GZIP_MAGIC):
        data = _gunzip(data, str(path))
    header, _, body = data.partition(b"\n")
    columns = _check_header(header.decode("utf-8", "replace").strip().split(","), str(path))
    if not body.strip():
        raise DataFormatError(f"expected at least one row below the header, found none in {path}")
    if not body.endswith(b"\n"):
        # A last value that lost a digit would pass for a smaller one.
        last = len(body.splitlines()) + 1
        raise DataFormatError(
            f"expected a newline at the end, found a row that may be cut off in {path} line {last}"
        )
    try:
        table = np.loadtxt(io.BytesIO(body), np.uint8, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        _raise_first_bad_value(body, columns, str(path))
        raise DataFormatError(f"expected rows of integers, found {error} in {path}") from None
    if table.shape[1] != len(columns):
        _raise_first_bad_value(body, columns, str(path))
    images = np.ascontiguousarray(table[:, -784:]).reshape(-1, 28, 28, 1)
    return images, table[:, 0].astype(np.int32) if columns[0] == "label" else None


def kaggle_csv_is_labelled(path: PathLike) -> bool:
    """Tells from the header of a CSV file whether it holds labels.

    Args:
        path: the file, plain or compressed by gzip.

    Raises:
        DataFormatError: if the header is not one that `read_kaggle_csv` knows.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if compressed else open(path, "rb") as file:
            header = file.readline().decode("utf-8", "replace")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"expected a sound gzip file, found a damaged one, {path}: {error}"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return _check_header(header.strip().split(","), str(path))[0] == "label"


def _check_header(columns: list[str], where: str) -> list[str]:
    has_label = columns[0] == "label"
    pixels = tuple(columns[has_label:])
    if pixels not in (_PIXELS, _ROW_BY_COLUMN):
        shown = ",".join(columns[:3])
        raise DataFormatError(
            f"expected a header label,pixel0,...,pixel783 (785 columns) or pixel0,...,pixel783 "
            f"(784), found {shown[:40]!r}... ({len(columns)} columns) in {where} line 1"
        )
    return columns


def _raise_first_bad_value(body: bytes, columns: list[str], where: str) -> None:
    """Finds what the fast reader stumbled over, for a message with line and column."""
    for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), start=2):
        values = line.split(",")
        if line and len(values) != len(columns):
            raise DataFormatError(
                f"expected {len(columns)} columns, found {len(values)} in {where} line {number}"
            )
        for column, value in zip(columns, values, strict=False):
            if line and not (re.fullmatch(r" *\d{1,9} *", value) and int(value) <= 255):
                raise DataFormatError(
                    f"expected an integer from 0 to 255, found {value[:20]!r} in {where} "
                    f"line {number} column {column}"
                )
