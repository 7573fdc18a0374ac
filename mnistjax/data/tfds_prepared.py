"""Finds and reads data sets that TensorFlow Datasets (TFDS) has prepared.

They are found by their folders, and read without TensorFlow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.errors import DataFormatError
from mnistjax.files import read_json

Pair = tuple[np.ndarray, np.ndarray]

_INFO_FILE = "dataset_info.json"
_READ_AHEAD = 1000  # records per call, which takes half the time of reading one by one


@dataclass(frozen=True)
class Prepared:
    """A data set that TFDS has prepared.

    Attributes:
        path: the folder of the version, for example `DIR/mnist/3.0.1`.
        label: the name and the version, for example "mnist/3.0.1".
        file_format: format of the records; only "array_record" can be read without TensorFlow.
    """

    path: Path
    label: str
    file_format: str

    @property
    def is_readable(self) -> bool:
        """Whether `read_prepared` can read it."""
        return self.file_format == "array_record"

    def files(self) -> list[Path]:
        """Returns its files, sorted by name."""
        return sorted(path for path in self.path.iterdir() if path.is_file())


def find_prepared(builder: str, data_dir: Path) -> Prepared | None:
    """Finds the newest prepared version of a data set, preferring readable ones.

    Args:
        builder: the name of the TFDS builder, for example "emnist/letters".
        data_dir: the folder that TFDS prepares its data sets in.

    Returns:
        The prepared data set, or None if there is none.

    Raises:
        DataFormatError: if a version's description is damaged.
    """
    folder = data_dir / builder
    found = [
        Prepared(path.parent, f"{builder}/{path.parent.name}", _file_format(path))
        for path in folder.glob(f"[0-9]*/{_INFO_FILE}")
    ]
    return max(found, key=_readable_then_newest, default=None)


def _readable_then_newest(prepared: Prepared) -> tuple[bool, list[int]]:
    numbers = [int(part) for part in prepared.path.name.split(".") if part.isdigit()]
    return prepared.is_readable, numbers


def _file_format(path: Path) -> str:
    try:
        description = read_json(path)
        return str(description.get("fileFormat", "tfrecord"))
    except (OSError, ValueError, AttributeError) as error:
        raise DataFormatError(
            f"expected the description of a prepared data set, found {error} in {path}"
        ) from None


def read_prepared(prepared: Prepared) -> tuple[Pair, Pair]:
    """Decodes the records of a prepared data set.

    Args:
        prepared: a data set whose `is_readable` is True.

    Returns:
        (train, test), each (images, labels): uint8 [N, H, W, C] and int32 [N], as recorded.

    Raises:
        DataFormatError: if a split is missing or empty, or a record is damaged.
    """
    import tensorflow_datasets as tfds

    raw = {"image": tfds.decode.SkipDecoding()}
    try:
        builder = tfds.builder_from_directory(prepared.path)
        train, test = builder.as_data_source(["train", "test"], decoders=raw)
        return _decode_records(train), _decode_records(test)
    except (OSError, ValueError, RuntimeError, LookupError, SyntaxError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"expected the records of {prepared.label}, found {message} in {prepared.path}"
        ) from error


def _decode_records(records: Any) -> Pair:
    from PIL import Image

    if len(records) == 0:
        raise ValueError("an empty split")
    images, labels = [], []
    for start in range(0, len(records), _READ_AHEAD):
        stop = min(start + _READ_AHEAD, len(records))
        for record in records.__getitems__(list(range(start, stop))):
            images.append(np.asarray(Image.open(io.BytesIO(record["image"]), formats=["PNG"])))
            labels.append(record["label"])
    stacked = np.stack(images)
    return stacked.reshape(*stacked.shape[:3], -1), np.array(labels, np.int32)
