"""Finds and reads data sets that TensorFlow Datasets (TFDS) has prepared.

They are found by their folders, and read without TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.data.splits import hold_out_a_fifth
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
        (train, test), each (images, labels): uint8 [N, H, W, C] and int32 [N], as recorded. Without
        a split "test" it is the split "validation", and without that a fixed fifth of each class.

    Raises:
        DataFormatError: if a split is missing or empty, a record is damaged, or the images differ
            in size.
    """
    import tensorflow_datasets as tfds

    raw = {"image": tfds.decode.SkipDecoding()}
    with _says_what_is_wrong(prepared):
        builder = tfds.builder_from_directory(prepared.path)
        others = [name for name in ("test", "validation") if name in builder.info.splits]
        splits = builder.as_data_source(["train", *others[:1]], decoders=raw)
        pairs = [_decode_records(split, _mode(builder.info.features)) for split in splits]
        return (pairs[0], pairs[1]) if others else hold_out_a_fifth(*pairs[0])


def read_class_names(prepared: Prepared) -> tuple[str, ...]:
    """Returns the names of the classes of a prepared data set.

    Args:
        prepared: a data set whose `is_readable` is True.

    Raises:
        DataFormatError: if its records are not an image and a label each.
    """
    import tensorflow_datasets as tfds

    with _says_what_is_wrong(prepared):
        features = tfds.builder_from_directory(prepared.path).info.features
        if features is None or not {"image", "label"} <= set(features):
            raise ValueError(f"{', '.join(features or ()) or 'nothing'}, not image and label")
        return tuple(features["label"].names or ())


@contextlib.contextmanager
def _says_what_is_wrong(prepared: Prepared) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError, SyntaxError, AttributeError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"expected the records of {prepared.label}, found {message} in {prepared.path}"
        ) from error


def _mode(features: Any) -> str:
    """Returns Pillow's mode of the images that the features describe."""
    image = features["image"]
    if np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(f"images of {np.dtype(image.np_dtype).name}, not of uint8")
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if image.shape[-1] not in modes:
        raise ValueError(f"images of {image.shape[-1]} channels, not of 1, 3 or 4")
    return modes[image.shape[-1]]


def _decode_records(records: Any, mode: str) -> Pair:
    from PIL import Image

    count = len(records)
    if count == 0:
        raise ValueError("an empty split")
    images, labels = np.empty(0, np.uint8), np.empty(count, np.int32)
    for start in range(0, count, _READ_AHEAD):
        rows = range(start, min(start + _READ_AHEAD, count))
        for row, record in zip(rows, records.__getitems__(list(rows)), strict=True):
            picture = Image.open(io.BytesIO(record["image"]), formats=["PNG", "JPEG"])
            image = np.asarray(picture.convert(mode))
            if row == 0:
                images = np.empty((count, *image.shape), np.uint8)
            elif image.shape != images.shape[1:]:
                raise ValueError(f"images of {images.shape[1:]} and {image.shape}, not of one size")
            images[row], labels[row] = image, record["label"]
    return images.reshape(*images.shape[:3], -1), labels
