"""Reads files that may be compressed by gzip, which is detected from their content."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path

from mnistjax.errors import DataFormatError, DatasetNotFoundError

PathLike = str | os.PathLike[str]

# Far more than the largest data set of this package unpacks to (EMNIST, 0.55 GB of images).
MAX_BYTES = 2 << 30
_CHUNK_BYTES = 1 << 18
# MNIST unpacks to 5 times its size, black images to 1,000 times.
_MAX_RATIO = 100
_MIN_LIMIT = 1 << 24
_MAGIC = b"\x1f\x8b"


def read_file(path: PathLike) -> bytes:
    """Reads a whole file as it is.

    Args:
        path: the file.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataFormatError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DatasetNotFoundError(f"expected a data file, found none at {path}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def read_first_line(path: PathLike, limit: int) -> bytes:
    """Reads only the first line of a file, decompressing it if needed.

    Args:
        path: the file, plain or compressed by gzip.
        limit: the largest number of bytes to read; a longer line is cut off there.

    Raises:
        DataFormatError: if it cannot be read, or its compressed content is damaged or cut off.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(_MAGIC)) == _MAGIC
        with gzip.open(path) if compressed else open(path, "rb") as file:
            return file.readline(limit)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(str(path), error) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def decompress(data: bytes, where: str, *, limit: int = MAX_BYTES) -> bytes:
    """Decompresses gzip data, and returns any other data unchanged.

    Args:
        data: the content of a file.
        where: the name of the file, for error messages.
        limit: the largest number of bytes that it may unpack to.

    Raises:
        DataFormatError: if compressed data is damaged or cut off, or unpacks to more than `limit`
            or to many times what images and labels do.

    Example:
        >>> decompress(gzip.compress(b"pixels"), "packed.gz")
        b'pixels'
        >>> decompress(b"pixels", "plain")
        b'pixels'
    """
    if not data.startswith(_MAGIC):
        return data
    limit = min(limit, max(_MIN_LIMIT, _MAX_RATIO * len(data)))
    unpacked = _unpack(data, where, limit + 1)
    if len(unpacked) > limit:
        raise DataFormatError(f"expected at most {limit:,} unpacked bytes, found more in {where}")
    return unpacked


def decompress_start(data: bytes, where: str, count: int) -> bytes:
    """Returns at most `count` bytes from the start of data that may be compressed.

    Args:
        data: the content of a file, plain or compressed by gzip.
        where: the name of the file, for error messages.
        count: number of bytes.

    Raises:
        DataFormatError: if compressed data is damaged or cut off.
    """
    return _unpack(data, where, count) if data.startswith(_MAGIC) else data[:count]


def _unpack(data: bytes, where: str, count: int) -> bytes:
    """Unpacks at most `count` bytes; at the end of the data, its checksum is verified."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            parts, left = [], count
            # In chunks, because `read` allocates what it is asked for, however short the file is.
            while left and (part := file.read(min(left, _CHUNK_BYTES))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
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
