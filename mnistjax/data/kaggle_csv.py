"""Strict reader of CSV files of 28x28 images, in the format of Kaggle's Digit Recognizer.

A damaged, truncated or unrelated file raises an error instead of giving wrong pixels.
"""

from __future__ import annotations

import io
import re

import numpy as np

from mnistjax.data.gzipped import PathLike, decompress, read_file, read_first_line
from mnistjax.errors import DataFormatError

_MAX_HEADER = 1 << 14  # Twice the longest header, with quoted names.
_PIXELS = tuple(f"pixel{i}" for i in range(784))
_ROW_BY_COLUMN = tuple(f"{row}x{column}" for row in range(1, 29) for column in range(1, 29))


def read_kaggle_csv(path: PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    r"""Reads a CSV file of 28x28 images, one per row.

    The format is that of Kaggle's Digit Recognizer, https://www.kaggle.com/c/digit-recognizer.

    Args:
        path: the file, plain or compressed by gzip. Its header is `label,pixel0,...,pixel783` or
            `label,1x1,1x2,...,28x28`, or one of these without `label`; the names may be quoted,
            and a byte order mark may come first.

    Returns:
        (images, labels): uint8 [N, 28, 28, 1] and int32 [N]; `labels` is None if there are none.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataFormatError: if the header is none of these, a row has the wrong number of columns, a
            value is not an integer from 0 to 255, or the file is cut off; the message names the
            line and the column.

    Example:
        >>> import pathlib, tempfile
        >>> header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
        >>> seven = ",".join(["7", *["0"] * 784])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "train.csv")
        ...     _ = path.write_text(f"{header}\n{seven}\n")
        ...     images, labels = read_kaggle_csv(path)
        >>> images.shape, labels
        ((1, 28, 28, 1), array([7], dtype=int32))
    """
    header, _, body = decompress(read_file(path), str(path)).partition(b"\n")
    columns = _check_header(header, str(path))
    if not body.strip():
        raise DataFormatError(f"expected at least one row below the header, found none in {path}")
    if not body.endswith(b"\n"):
        # Without this check, a last value that lost a digit would be read as a smaller number.
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


def kaggle_csv_is_labeled(path: PathLike) -> bool:
    """Returns whether a CSV file holds labels, according to its header.

    Args:
        path: the file, plain or compressed by gzip.

    Raises:
        DataFormatError: if the header is not one that `read_kaggle_csv` knows.
    """
    return _check_header(read_first_line(path, _MAX_HEADER + 1), str(path))[0] == "label"


def _check_header(line: bytes, where: str) -> list[str]:
    """Returns the names of the columns."""
    if len(line) > _MAX_HEADER:
        raise DataFormatError(
            f"expected a header of at most {_MAX_HEADER:,} bytes, found {len(line):,} in {where}"
        )
    text = line.decode("utf-8-sig", "replace").strip()
    columns = [name.removeprefix('"').removesuffix('"') for name in text.split(",")]
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
    """Raises an error that names the line and column of the first value that cannot be read."""
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
