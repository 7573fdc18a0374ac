"""The files of a data set in a folder of the user's, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnistjax.data.idx import find_idx_files, read_idx_files
from mnistjax.data.kaggle_csv import kaggle_csv_is_labeled, read_kaggle_csv
from mnistjax.data.picture_folder import Pictures, find_pictures, read_pictures
from mnistjax.data.splits import hold_out_a_fifth
from mnistjax.errors import DataFormatError, DatasetNotFoundError

Pair = tuple[np.ndarray, np.ndarray]
Read = Callable[[], tuple[Pair, Pair]]  # returns (train, test), each (images, labels)


class Found(NamedTuple):
    """The files of a data set, and how to read them.

    Attributes:
        source: a description for the user.
        cache_dir: the folder that the cache belongs to.
        files: what `decode` reads.
        decode: returns (train, test), each images and labels.
        class_names: the names of the classes; empty if the files do not say.
    """

    source: str
    cache_dir: Path
    files: Sequence[Path]
    decode: Read
    class_names: tuple[str, ...] = ()


def find_in_folder(folder: Path) -> Found:
    """Finds IDX files, else CSV files, else pictures in subfolders.

    Args:
        folder: the folder.

    Raises:
        DatasetNotFoundError: it has none of them.
        DataFormatError: the subfolders of the test split are not those of the training split.
    """
    found = _find_idx(folder) or _find_csvs(folder) or _find_picture_folders(folder)
    if found is None:
        raise DatasetNotFoundError(
            "expected a folder with four IDX files (train-images-idx3-ubyte.gz, ...), with "
            "train.csv, or with a folder of pictures for each class, "
            f"found none of them in {folder}"
        )
    return found


def _find_idx(folder: Path) -> Found | None:
    if files := find_idx_files(folder):
        return Found(f"IDX files in {folder}", folder, files, partial(read_idx_files, files))
    return None


def _find_csvs(folder: Path) -> Found | None:
    train, test = _find_csv(folder, "train"), _find_csv(folder, "test")
    if train is None:
        return None
    if test is not None and kaggle_csv_is_labeled(test):
        source = f"CSV files in {folder} ({train.name}, {test.name})"
        return Found(source, folder, (train, test), lambda: (_read_csv(train), _read_csv(test)))
    source = f"CSV file {train}; a fixed fifth of it, with the same share of every class, is "
    source += "the test split, for there is no labeled test file"
    return Found(source, folder, (train,), lambda: hold_out_a_fifth(*_read_csv(train)))


def _find_csv(folder: Path, split: str) -> Path | None:
    names = (f"{stem}{split}.csv{end}" for stem in ("", "mnist_") for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_csv(path: Path) -> Pair:
    images, labels = read_kaggle_csv(path)
    if labels is None:
        raise DataFormatError(f"expected a column label, found none in {path} line 1")
    return images, labels


def _find_picture_folders(folder: Path) -> Found | None:
    """Finds `train/<class>/` and `test/<class>/`, or `<class>/` alone."""
    train = find_pictures(folder / "train") if (folder / "train").is_dir() else None
    if train is None:
        pictures = find_pictures(folder)
        if pictures is None:
            return None
        source = f"pictures in {folder}; a fixed fifth of each class is the test split"
        return Found(
            source,
            folder,
            pictures.files,
            lambda: hold_out_a_fifth(*read_pictures(pictures)[0]),
            pictures.class_names,
        )
    test = None
    if (folder / "test").is_dir():
        test = find_pictures(folder / "test", train.class_names)
    if test is None:
        raise DatasetNotFoundError(
            f"expected pictures in {folder / 'test'}, as in {folder / 'train'}, found none"
        )
    return Found(
        f"pictures in {folder}",
        folder,
        [*train.files, *test.files],
        partial(_read_both, train, test),
        train.class_names,
    )


def _read_both(train: Pictures, test: Pictures) -> tuple[Pair, Pair]:
    first, second = read_pictures(train, test)
    return first, second
