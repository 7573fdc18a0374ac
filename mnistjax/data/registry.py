"""The table of the data sets that have a name."""

from __future__ import annotations

import string
from collections.abc import Mapping
from types import MappingProxyType

from mnistjax.data.splits import DatasetInfo
from mnistjax.errors import UnknownNameError

_DIGITS = tuple(string.digits)
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CHARACTERS = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
# EMNIST merges the letters whose two cases look alike; these eleven keep a lowercase class.
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")


def _mnist_like(name: str, class_names: tuple[str, ...]) -> DatasetInfo:
    return DatasetInfo(
        name, len(class_names), class_names, train_size=60_000, test_size=10_000, builder=name
    )


def _emnist(
    name: str,
    class_names: tuple[str, ...],
    sizes: tuple[int, int],
    *,
    label_offset: int = 0,
    prepared_sizes: tuple[int, int] | None = None,
) -> DatasetInfo:
    full = f"emnist/{name}"
    return DatasetInfo(
        full,
        len(class_names),
        class_names,
        train_size=sizes[0],
        test_size=sizes[1],
        builder=full,
        transposed=True,
        label_offset=label_offset,
        prepared_sizes=prepared_sizes,
    )


_INFOS = (
    _mnist_like("mnist", _DIGITS),
    _mnist_like("fashion_mnist", _FASHION),
    _mnist_like("kmnist", _KUZUSHIJI),
    _emnist("byclass", _CHARACTERS, (697_932, 116_323)),
    _emnist("bymerge", _MERGED, (697_932, 116_323)),
    _emnist("balanced", _MERGED, (112_800, 18_800)),
    # The published files hold 145,600 letters; TensorFlow Datasets keeps the first 103,600.
    _emnist(
        "letters",
        tuple(string.ascii_uppercase),
        (124_800, 20_800),
        label_offset=1,
        prepared_sizes=(88_800, 14_800),
    ),
    _emnist("digits", _DIGITS, (240_000, 40_000)),
    _emnist("mnist", _DIGITS, (60_000, 10_000)),
    DatasetInfo("digits", 10, _DIGITS, train_size=1_437, test_size=360),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _INFOS})
"""Every data set that `load_dataset` knows, by name."""

PUBLISHED_SHA256: Mapping[str, str] = MappingProxyType(
    {"mnist": "adb567574fe7fb5b95c57b68ebd03c3533913f0387530f619d797b8045684dd5"}
)
"""For a data set whose published content is known, the digest of its images and labels in any order
that `load_dataset` computes."""


def get_dataset_info(name: str) -> DatasetInfo:
    """Looks up a registered data set.

    Args:
        name: a key of `DATASETS`.

    Returns:
        Its description.

    Raises:
        UnknownNameError: if no data set has this name; the message suggests the closest one.

    Example:
        >>> info = get_dataset_info("fashion_mnist")
        >>> info.num_classes, info.class_names[9]
        (10, 'Ankle boot')
    """
    if name not in DATASETS:
        raise UnknownNameError("dataset", name, DATASETS)
    return DATASETS[name]
