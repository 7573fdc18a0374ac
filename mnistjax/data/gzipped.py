"""Reads files that may be compressed by gzip, which is detected from their content."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from mnistjax.errors import DataFormatError, DatasetNotFoundError

PathLike = str | os.PathLike[str]

_MAGIC = b"\x1f\x8b"


def read_bytes(path: PathLike) -> bytes:
    """Reads a whole file, decompressing it if needed.

    Args:
        path: the file, plain or compressed by gzip.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataFormatError: if it cannot be read, or its compressed content is damaged or cut off.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DatasetNotFoundError(f"expected a data file, found none at {path}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return decompress(data, str(path))


def read_first_line(path: PathLike) -> bytes:
    """Reads only the first line of a file, decompressing it if needed.

    Args:
        path: the file, plain or compressed by gzip.

    Raises:
        DataFormatError: if it cannot be read, or its compressed content is damaged or cut off.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(_MAGIC)) == _MAGIC
        with gzip.open(path) if compressed else open(path, "rb") as file:
            return file.readline()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(str(path), error) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def decompress(data: bytes, where: str) -> bytes:
    """Decompresses gzip data, and returns any other data unchanged.

    Args:
        data: the content of a file.
        where: the name of the file, for error messages.

    Raises:
        DataFormatError: if compressed data is damaged or cut off.

    Example:
        >>> decompress(gzip.compress(b"pixels"), "packed.gz")
        b'pixels'
        >>> decompress(b"pixels", "plain")
        b'pixels'
    """
    if not data.startswith(_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise DataFormatError(
            f"expected a whole gzip file, found one that is cut off, {where}"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(where, error) from None


def _damaged(where: str, error: Exception) -> DataFormatError:
    return DataFormatError(f"expected a sound gzip file, found a damaged one, {where}: {error}")


def _unreadable(path: PathLike, error: OSError) -> DataFormatError:
    return DataFormatError(f"expected a readable data file, found {path}: {error.strerror}")
