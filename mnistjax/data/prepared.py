"""Finds what TensorFlow Datasets (TFDS) has prepared, from its folders alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mnistjax.data.registry import DatasetInfo
from mnistjax.errors import DataFormatError

_INFO_FILE = "dataset_info.json"


@dataclass(frozen=True)
class Prepared:
    """A data set that TFDS has prepared.

    Attributes:
        path: the folder of the version, for example `DIR/mnist/3.0.1`.
        label: the name and the version, for example "mnist/3.0.1".
        file_format: of the records; only "array_record" can be read without TensorFlow.
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


def find_prepared(info: DatasetInfo, data_dir: Path) -> Prepared | None:
    """Finds the newest prepared version of a data set; readable ones come first.

    Args:
        info: the data set.
        data_dir: the folder that TFDS prepares its data sets in.

    Returns:
        What was found, or None.

    Raises:
        DataFormatError: if a version's description is damaged.
    """
    folder = data_dir / str(info.builder)
    found = [
        Prepared(path.parent, f"{info.builder}/{path.parent.name}", _file_format(path))
        for path in folder.glob(f"[0-9]*/{_INFO_FILE}")
    ]
    return max(found, key=_readable_then_newest, default=None)


def _readable_then_newest(prepared: Prepared) -> tuple[bool, list[int]]:
    numbers = [int(part) for part in prepared.path.name.split(".") if part.isdigit()]
    return prepared.is_readable, numbers


def _file_format(path: Path) -> str:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        return str(description.get("fileFormat", "tfrecord"))
    except (OSError, ValueError, AttributeError) as error:
        raise DataFormatError(
            f"expected the description of a prepared data set, found {error} in {path}"
        ) from None
