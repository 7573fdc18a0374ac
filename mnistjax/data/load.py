"""`load_dataset`: finds the files of a data set and loads them as arrays.

A data set is looked for in this order:

- by name: IDX files, else files prepared by TensorFlow Datasets (TFDS), else a download;
- by the name "tfds:NAME": files prepared by TFDS;
- in a folder: IDX files, else CSV files, else pictures with a folder for each class;
- without a name: MNIST, else the digits bundled with scikit-learn.

The files found are decoded, or their arrays read from the cache, and checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
from functools import partial
from pathlib import Path

import numpy as np

from mnistjax.data.cache import Arrays, cached_arrays, is_writable, user_cache_dir
from mnistjax.data.embedded import embedded_digits
from mnistjax.data.folders import Found, Pair, Read, find_in_folder
from mnistjax.data.idx import decode_idx_pair, find_idx_files, read_idx_files
from mnistjax.data.registry import DATASETS, PUBLISHED_SHA256
from mnistjax.data.splits import Dataset, DatasetInfo, Split, hold_out_a_fifth
from mnistjax.data.tfds_download import prepare
from mnistjax.data.tfds_prepared import Prepared, find_prepared, read_class_names, read_prepared
from mnistjax.errors import DataFormatError, DatasetNotFoundError, UnknownNameError
from mnistjax.files import printable, user_path

PathLike = str | os.PathLike[str]
_Sizes = tuple[int | None, int | None]  # of train and test

_TFDS = r"tfds:([a-z0-9_]+(?:/[\w.-]+)?)"  # "tfds:cifar10", "tfds:emnist/letters"
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

_LOG = logging.getLogger(__name__)


def load_dataset(
    name: PathLike | None = None, *, data_dir: PathLike | None = None, download: bool = True
) -> Dataset:
    """Loads a data set from local files, or downloads it.

    A registered data set is read from IDX files in `data_dir/<name>/` (`data_dir/emnist/` for
    EMNIST), else from files that TensorFlow Datasets (TFDS) prepared in `data_dir`, else it is
    downloaded. Decoded arrays are cached beside the data, in `.mnistjax`, so that later loads take
    milliseconds.

    Args:
        name: a key of `DATASETS`; or "tfds:" and the name of any TFDS data set of images of one
            size, which TFDS has prepared as array_record; or a folder with the four IDX files, with
            `train.csv` (and `test.csv`) in Kaggle's format, or with pictures of one size in
            `<class>/` or in `train/<class>/` and `test/<class>/`; or None for MNIST, with
            scikit-learn's digits as a fallback if MNIST is not available. Registered names take
            precedence: for a folder named "mnist", pass "./mnist" or a `pathlib.Path`.
        data_dir: the folder that holds the data sets and receives downloads. If None, the
            environment variable MNISTJAX_DATA_DIR, else TFDS_DATA_DIR, else
            `~/tensorflow_datasets`.
        download: whether to download a data set that is not found.

    Returns:
        The data set: images uint8 [N, H, W, C], labels int32 [N]; its `source` describes which
        files were used. The arrays may be read-only and memory-mapped.

    Raises:
        UnknownNameError: if `name` is neither a data set nor a folder.
        DatasetNotFoundError: if the data set is not available; the message lists ways to get it.
        DataFormatError: if a file is damaged or holds something else.
        ConfigError: if a folder's only labeled file is too small to hold out a test split, or a
            path cannot be used.

    Example:
        >>> dataset = load_dataset("digits")
        >>> dataset.train.images.shape, dataset.train.labels.shape
        ((1437, 28, 28, 1), (1437,))
        >>> dataset.source
        'scikit-learn digits, embedded'
    """
    root = data_directory(data_dir)
    if name is None:
        # A mistyped data directory must raise an error instead of falling back to the digits.
        mistyped = bool(data_dir or os.environ.get("MNISTJAX_DATA_DIR")) and not root.exists()
        return _load_default(root, download=download, fall_back=not mistyped)
    if isinstance(name, str) and name in DATASETS:
        return _load_named(DATASETS[name], root, download=download)
    if isinstance(name, str) and (builder := re.fullmatch(_TFDS, name)):
        return _load_prepared(builder[1], root)
    return _load_folder(name)


def data_directory(data_dir: PathLike | None = None) -> Path:
    """Returns the folder in which data sets are looked for; it need not exist.

    Args:
        data_dir: the folder. If None, the environment variable MNISTJAX_DATA_DIR, else
            TFDS_DATA_DIR, else `~/tensorflow_datasets`.

    Raises:
        DatasetNotFoundError: if it is a file.
        ConfigError: if the path cannot be used.

    Example:
        >>> data_directory("/my/data").as_posix()
        '/my/data'
    """
    environment = os.environ.get("MNISTJAX_DATA_DIR") or os.environ.get("TFDS_DATA_DIR")
    given = data_dir or environment or "~/tensorflow_datasets"
    root = user_path(given, "data directory").absolute()
    if root.exists() and not root.is_dir():
        raise DatasetNotFoundError(f"expected the data directory to be a folder, found file {root}")
    return root


# Without a name: MNIST, or the embedded digits.


def _load_default(root: Path, *, download: bool, fall_back: bool) -> Dataset:
    try:
        return _load_named(DATASETS["mnist"], root, download=download)
    except DatasetNotFoundError:
        if not fall_back:
            raise
        # The full reason is long; an error gives it if MNIST is asked for by name.
        return _load_embedded(
            f"scikit-learn digits, embedded: mnist was not found in {root} and not downloaded; "
            "ask for mnist by name to see why"
        )


def _load_embedded(source: str) -> Dataset:
    train, test = hold_out_a_fifth(*embedded_digits())
    return Dataset(Split(*train), Split(*test), DATASETS["digits"], source)


# By name: IDX files, else prepared by TFDS, else downloaded.


def _load_named(info: DatasetInfo, root: Path, *, download: bool) -> Dataset:
    if info.builder is None:
        return _load_embedded("scikit-learn digits, embedded")
    found = _find_idx(info, root) or _find_prepared(info, info.builder, root)
    if not (found or download):
        raise _not_found(info, root, "downloading is off")
    return _decoded(found or _download(info, info.builder, root), info)


def _find_idx(info: DatasetInfo, root: Path) -> Found | None:
    for folder, prefix in _idx_folders(info, root):
        files = find_idx_files(folder, prefix)
        if files:
            sizes, places = _published_sizes(info), (files.train_images, files.test_images)
            decode = partial(_as_promised, info, partial(read_idx_files, files), sizes, places)
            return Found(f"IDX files in {folder}", root, files, decode)
    return None


def _idx_folders(info: DatasetInfo, root: Path) -> list[tuple[Path, str]]:
    """Returns where the IDX files of a data set may be, and the start of their names."""
    family, _, variant = info.name.partition("/")
    if not variant:
        return [(root / family, "")]
    # The published zip file unpacks into a folder "gzip".
    return [(root / family / sub, f"{family}-{variant}-") for sub in ("", "gzip")]


def _find_prepared(info: DatasetInfo, builder: str, root: Path) -> Found | None:
    unreadable = None
    for place in dict.fromkeys((root, _download_folder(root))):
        prepared = find_prepared(builder, place)
        if prepared and prepared.is_readable:
            return _prepared(info, place, prepared, f"TFDS {prepared.label} in {place}")
        unreadable = unreadable or prepared
    if unreadable:
        raise _not_found(
            info,
            root,
            f"{unreadable.path} was prepared as {unreadable.file_format}, which only TensorFlow "
            "can read; array_record is needed",
        )
    return None


def _load_prepared(builder: str, root: Path) -> Dataset:
    """Loads a data set that is not registered, as TFDS describes it."""
    prepared = find_prepared(builder, root)
    if prepared is None or not prepared.is_readable:
        kind = "nothing" if prepared is None else f"it as {prepared.file_format} alone"
        raise DatasetNotFoundError(
            f"expected {builder!r} prepared by TensorFlow Datasets as array_record in {root}, "
            f"found {kind}: `tfds build {builder} --file_format=array_record --data_dir={root}` "
            "prepares it, where TensorFlow is installed"
        )
    names = read_class_names(prepared)
    source, read = f"TFDS {prepared.label} in {root}", partial(read_prepared, prepared)
    found = Found(source, prepared.path, prepared.files(), read, names)
    dataset = _decoded(found, None)
    info = dataclasses.replace(dataset.info, name=f"tfds:{builder}")
    return dataclasses.replace(dataset, info=info)


def _download_folder(root: Path) -> Path:
    """Returns `root`, or the user's cache directory if `root` is read-only."""
    return root if is_writable(root) else user_cache_dir() / "tensorflow_datasets"


def _download(info: DatasetInfo, builder: str, root: Path) -> Found:
    place = _download_folder(root)
    failure = None
    try:
        prepare(builder, place, decode_pair=decode_idx_pair)
    except DatasetNotFoundError as error:
        failure = error
    prepared = find_prepared(builder, place)  # another process may have prepared it
    if prepared is None:
        raise _not_found(info, root, str(failure)) from failure
    return _prepared(info, place, prepared, f"downloaded by TFDS ({prepared.label}) into {place}")


def _prepared(info: DatasetInfo, place: Path, prepared: Prepared, source: str) -> Found:
    sizes, path = info.prepared_sizes or _published_sizes(info), prepared.path
    decode = partial(_as_promised, info, partial(read_prepared, prepared), sizes, (path, path))
    return Found(source, place, prepared.files(), decode)


def _not_found(info: DatasetInfo, root: Path, reason: str) -> DatasetNotFoundError:
    folder, prefix = _idx_folders(info, root)[0]
    return DatasetNotFoundError(
        f"data set {info.name!r} not found in {root}: {reason}. Let it be downloaded (needs a "
        f"network), or put the four files {prefix}*-ubyte.gz into {folder}, or point --data-dir "
        "or MNISTJAX_DATA_DIR at a folder where TFDS has prepared it"
    )


def _published_sizes(info: DatasetInfo) -> _Sizes:
    return info.train_size, info.test_size


def _as_promised(
    info: DatasetInfo, read: Read, sizes: _Sizes, places: tuple[Path, Path]
) -> tuple[Pair, Pair]:
    """Reads a data set, checks its sizes, turns images upright and makes labels start at 0."""
    pairs = read()
    for kind, (images, _), size, place in zip(("train", "test"), pairs, sizes, places, strict=True):
        if size is not None and len(images) != size:
            raise DataFormatError(
                f"expected {size} {kind} images of {info.name!r}, found {len(images)} in {place}"
            )

    def mend(pair: Pair) -> Pair:
        images, labels = pair
        upright = images.swapaxes(1, 2) if info.transposed else images
        return upright, labels - np.int32(info.label_offset)

    return mend(pairs[0]), mend(pairs[1])


# A folder of the user's.


def _load_folder(name: PathLike) -> Dataset:
    folder = user_path(name, "data set")
    if folder.is_dir():
        return _decoded(find_in_folder(folder), None)
    expected = "expected the name of a data set, or a folder with IDX or CSV files or pictures"
    if folder.exists():
        raise DatasetNotFoundError(f"{expected}, found file {folder}")
    if not isinstance(name, str):
        raise DatasetNotFoundError(f"{expected}, found nothing at {folder}")
    raise UnknownNameError("dataset", name, DATASETS)


# Decoding, caching and checking what was found.


def _decoded(found: Found, info: DatasetInfo | None) -> Dataset:
    """Builds the data set; without `info`, its images and labels determine the description."""
    name = info.name if info else "folder"
    published = PUBLISHED_SHA256.get(name)
    names = (*_ARRAYS, "sha256") if published else _ARRAYS

    def decode() -> Arrays:
        train, test = found.decode()
        digest = (_sha256(train, test),) if published else ()
        arrays = map(np.ascontiguousarray, (*train, *test, *digest))
        return dict(zip(names, arrays, strict=True))

    arrays = cached_arrays(name, found.cache_dir, found.files, names, decode)
    train = Split(arrays["train_images"], arrays["train_labels"])
    test = Split(arrays["test_images"], arrays["test_labels"])
    if published and arrays["sha256"].tobytes().hex() != published:
        _LOG.warning("%s do not hold the published images and labels of %s", found.source, name)
    return Dataset(train, test, info or _describe(found, train, test), found.source)


def _sha256(train: Pair, test: Pair) -> np.ndarray:
    """Returns a digest of images and labels, uint8 [32], which is cached with them.

    It does not depend on the order of the images, because TFDS shuffles what it prepares.
    """
    whole = hashlib.sha256()
    for images, labels in (train, test):
        pixels = images.reshape(len(images), -1)
        rows = np.hstack([pixels, labels.astype("<i4")[:, None].view(np.uint8)])
        whole.update(b"".join(sorted(hashlib.sha256(row).digest() for row in rows)))
    return np.frombuffer(whole.digest(), np.uint8)


def _describe(found: Found, train: Split, test: Split) -> DatasetInfo:
    folder, names = found.cache_dir, found.class_names
    classes = len(names) or int(max(train.labels.max(), test.labels.max())) + 1
    missing = np.flatnonzero(np.bincount(train.labels, minlength=classes) == 0)
    if missing.size:
        _LOG.warning(
            "%s has labels from 0 to %d, but no training image of %d of these %d classes: %s",
            *(folder, classes - 1, missing.size, classes, ", ".join(map(str, missing[:5]))),
        )
    name = printable(folder.resolve().name)
    return DatasetInfo(name, classes, names, image_shape=train.images.shape[1:])
