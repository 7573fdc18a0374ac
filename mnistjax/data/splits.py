"""Data sets in memory: images, labels and a description, validated on construction."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import numpy as np

from mnistjax.errors import ConfigError, DataFormatError

MAX_CLASSES = 1 << 16
MAX_PIXELS = 1 << 24


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set.

    For 28x28 images of your own, a name and the number of classes are enough.

    Attributes:
        name: the name that `load_dataset` takes, or one of your own.
        num_classes: number of classes; labels are 0 to num_classes - 1.
        class_names: a name for each class; "0", "1", ... when left out.
        image_shape: (height, width, channels) in pixels.
        train_size: number of training images in the published files, or None.
        test_size: the same for the test images.
        builder: name of the TensorFlow Datasets builder, for example "emnist/letters", or None.
        transposed: whether the published files store each image with rows and columns swapped.
        label_offset: added to each label in the published files (EMNIST letters start at 1).
        prepared_sizes: (train, test) sizes of the data set as TensorFlow Datasets prepares it,
            where they differ from the published files.

    Raises:
        ConfigError: if a count is out of bounds, a name is not printable text, or the class names
            do not match the classes.

    Example:
        >>> DatasetInfo("my digits", 3).class_names
        ('0', '1', '2')
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] = (28, 28, 1)
    train_size: int | None = None
    test_size: int | None = None
    builder: str | None = None
    transposed: bool = False
    label_offset: int = 0
    prepared_sizes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Fills in the class names and checks the counts."""
        integer = isinstance(self.num_classes, numbers.Integral)
        if not (integer and 1 <= self.num_classes <= MAX_CLASSES):
            raise ConfigError(
                f"num_classes of {self.name!r} must be from 1 to {MAX_CLASSES:,}, "
                f"found {self.num_classes}"
            )
        # They may come from a file, and must not send codes to a terminal.
        for text in (self.name, *self.class_names):
            if not (isinstance(text, str) and text.isprintable()):
                raise ConfigError(
                    f"names of a data set and its classes must be printable text, found {text!r}"
                )
        if not self.class_names:
            names = tuple(str(label) for label in range(self.num_classes))
            object.__setattr__(self, "class_names", names)
        if len(self.class_names) != self.num_classes:
            raise ConfigError(
                f"class_names of {self.name!r} must hold {self.num_classes} names, "
                f"found {len(self.class_names)}"
            )
        whole = all(isinstance(size, numbers.Integral) for size in self.image_shape)
        if not (whole and len(self.image_shape) == 3 and min(self.image_shape) >= 1):
            raise ConfigError(
                f"image_shape of {self.name!r} must be (height, width, channels), each >= 1, "
                f"found {self.image_shape}"
            )
        if math.prod(self.image_shape) > MAX_PIXELS:
            raise ConfigError(
                f"image_shape of {self.name!r} must have at most {MAX_PIXELS:,} values, "
                f"found {self.image_shape}"
            )


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, validated on construction.

    Attributes:
        images: uint8 [N, H, W, C], 0 to 255.
        labels: int32 [N], 0 or more.

    Raises:
        DataFormatError: if a dtype, a rank or a length is wrong, a label is negative, or N is 0.

    Example:
        >>> split = Split(np.zeros((2, 28, 28, 1), np.uint8), np.array([7, 2], np.int32))
        >>> len(split)
        2
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Checks the arrays."""
        _check_array("images", self.images, np.uint8, "[N, H, W, C]", 4)
        _check_array("labels", self.labels, np.int32, "[N]", 1)
        if len(self.images) != len(self.labels):
            raise DataFormatError(
                f"images and labels must be equally many, "
                f"found {len(self.images)} images and {len(self.labels)} labels"
            )
        if self.images.size == 0:
            raise DataFormatError(
                f"images must hold at least one pixel, found shape {self.images.shape}"
            )
        if self.labels.min() < 0:
            index = int(np.argmax(self.labels < 0))
            raise DataFormatError(
                f"labels must be >= 0, found {self.labels[index]} at index {index}"
            )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)


def _check_array(name: str, array: np.ndarray, dtype: type, shape: str, rank: int) -> None:
    expected = f"{name} must be a NumPy array, {np.dtype(dtype).name} {shape}"
    # A masked array is an array, whose mask would be dropped in silence.
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise DataFormatError(f"{expected}, found {type(array).__name__}")
    if array.dtype != dtype or array.ndim != rank:
        raise DataFormatError(f"{expected}, found {array.dtype.name} {list(array.shape)}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training split, a test split and their description, validated on construction.

    Attributes:
        train: the images to train on.
        test: the images to test with.
        info: the data set's description.
        source: describes where the images came from.

    Raises:
        DataFormatError: if the images of a split are not of `info.image_shape`, or a label is
            not below `info.num_classes`.

    Example:
        >>> split = Split(np.zeros((2, 28, 28, 1), np.uint8), np.array([7, 2], np.int32))
        >>> Dataset(split, split, DatasetInfo("blank", 10)).source
        'arrays in memory'
    """

    train: Split
    test: Split
    info: DatasetInfo
    source: str = "arrays in memory"

    def __post_init__(self) -> None:
        """Checks both splits against the description."""
        for name, split in (("train", self.train), ("test", self.test)):
            shape = split.images.shape[1:]
            if shape != tuple(self.info.image_shape):
                raise DataFormatError(
                    f"{name} images of {self.info.name!r} must be of shape "
                    f"{self.info.image_shape}, found {shape}"
                )
            if split.labels.max() >= self.info.num_classes:
                index = int(np.argmax(split.labels >= self.info.num_classes))
                raise DataFormatError(
                    f"{name} labels of {self.info.name!r} must be below "
                    f"{self.info.num_classes}, found {split.labels[index]} at index {index}"
                )


def split_validation(split: Split, fraction: float, *, seed: int) -> tuple[Split, Split | None]:
    """Holds out part of a split for validation, with the same share of every class.

    Args:
        split: the images to divide.
        fraction: the share to hold out, 0 <= fraction < 1; rounded up to whole images.
        seed: determines which images are held out. Keep it fixed when the seed of a run changes,
            so that all runs are validated on the same images.

    Returns:
        (train, validation), each in the order of `split`; validation is None when `fraction` is 0.

    Raises:
        ConfigError: if `fraction` is out of bounds, or leaves a side without some class.

    Example:
        >>> labels = np.repeat(np.arange(10, dtype=np.int32), 20)
        >>> split = Split(np.zeros((200, 28, 28, 1), np.uint8), labels)
        >>> train, validation = split_validation(split, 0.1, seed=0)
        >>> len(train), np.bincount(validation.labels)
        (180, array([2, 2, 2, 2, 2, 2, 2, 2, 2, 2]))
    """
    sides = validation_indices(split.labels, fraction, seed=seed)
    if sides is None:
        return split, None
    train, validation = (Split(split.images[i], split.labels[i]) for i in sides)
    return train, validation


def hold_out_a_fifth(
    images: np.ndarray, labels: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Divides images and labels, with the same share of every class: four fifths and one fifth.

    Args:
        images: uint8 [N, H, W, C].
        labels: int32 [N].

    Returns:
        (train, test), each images and labels; the same ones in every call.

    Raises:
        ConfigError: a class has too few images.
    """
    kept, held_out = split_validation(Split(images, labels), 0.2, seed=0)
    assert held_out is not None
    return (kept.images, kept.labels), (held_out.images, held_out.labels)


def validation_indices(
    labels: np.ndarray, fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Chooses the images that `split_validation` holds out, without copying any.

    Args:
        labels: int32 [N].
        fraction: the share to hold out, as for `split_validation`.
        seed: determines which images are held out.

    Returns:
        The sorted indices of the images that are kept and of those that are held out, or None when
        `fraction` is 0.

    Raises:
        ConfigError: as `split_validation`.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"validation fraction must be >= 0 and < 1, found {fraction}")
    if fraction == 0:
        return None
    sides = _stratified_indices(labels, fraction, seed)
    classes = len(np.unique(labels))
    for indices in sides:
        if len(np.unique(labels[indices])) < classes:
            raise ConfigError(
                f"validation fraction {fraction} of {len(labels)} images leaves a side without an "
                f"image of every class ({classes} classes)"
            )
    return sides


def _stratified_indices(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns sorted indices (kept, held out); nothing is held out if no split is possible."""
    from sklearn.model_selection import train_test_split

    counts = np.unique(labels, return_counts=True)[1]
    held_out = int(np.ceil(fraction * len(labels)))
    if counts.min() < 2 or min(held_out, len(labels) - held_out) < len(counts):
        return np.arange(len(labels)), np.arange(0)
    kept, held = train_test_split(
        np.arange(len(labels)), test_size=held_out, random_state=seed, stratify=labels
    )
    return np.sort(kept), np.sort(held)
