"""`load_dataset`: finds the bytes of a data set, and says which it used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mnistjax.data.cache import Arrays, cached_arrays, is_writable, user_cache_dir
from mnistjax.data.files import (
    IdxFiles,
    Pair,
    find_idx_files,
    kaggle_csv_is_labelled,
    read_idx_pair,
    read_kaggle_csv,
)
from mnistjax.data.prepared import Prepared, find_prepared
from mnistjax.data.registry import (
    DATASETS,
    Dataset,
    DatasetInfo,
    Split,
    split_validation,
)
from mnistjax.data.tfds_builders import prepare, read_prepared
from mnistjax.errors import DataFormatError, DatasetNotFoundError, UnknownNameError

PathLike = str | os.PathLike[str]
_HELD_OUT = 0.2


def load_dataset(
    name: PathLike | None = None, *, data_dir: PathLike | None = None, download: bool = True
) -> Dataset:
    """Loads a data set, from the nearest place that has it.

    A registered data set is looked for as IDX files in `data_dir/<name>/` (EMNIST: in
    `data_dir/emnist/`), then as TensorFlow Datasets (TFDS) prepared it in `data_dir`, then it is
    downloaded. Decoded arrays are cached beside the data, in `.mnistjax`, so that the next load
    takes milliseconds.

    Args:
        name: a key of `DATASETS`; or a folder of your own, with the four IDX files, or with
            `train.csv` (and `test.csv`) as Kaggle has them; or None for MNIST, and in its place
            scikit-learn's embedded digits if it cannot be had.
        data_dir: where the data sets lie and are downloaded to. If None: the environment's
            MNISTJAX_DATA_DIR, else TFDS's folder, TFDS_DATA_DIR or `~/tensorflow_datasets`.
        download: whether to download a data set that is not there.

    Returns:
        The data set: images uint8 [N, H, W, C], labels int32 [N]; its `source` says in words which
        bytes were used. The arrays may be read-only and memory-mapped.

    Raises:
        UnknownNameError: if `name` is neither a data set nor a folder.
        DatasetNotFoundError: if the data set cannot be had; the message lists the ways to get it.
        DataFormatError: if a file is damaged or holds something else.
        ConfigError: if a folder's only labelled file is too small to hold out a test split.
    """
    root = data_directory(data_dir)
    if name is None:
        # A folder that was named and mistyped must not pass for "there is no MNIST".
        mistyped = bool(data_dir or os.environ.get("MNISTJAX_DATA_DIR")) and not root.exists()
        return _load_default(root, download=download, fall_back=not mistyped)
    if name == "digits":
        return _load_digits("scikit-learn digits, embedded")
    if str(name) in DATASETS:
        return _load_registered(DATASETS[str(name)], root, download=download)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_folder(folder)
    if folder.exists():
        raise DatasetNotFoundError(
            "expected the name of a data set, or a folder with IDX or CSV files, "
            f"found file {folder}"
        )
    raise UnknownNameError("dataset", str(name), DATASETS)


def data_directory(data_dir: PathLike | None = None) -> Path:
    """Returns where data sets are looked for; the folder need not exist.

    Args:
        data_dir: the folder. If None: the environment's MNISTJAX_DATA_DIR, else TFDS's folder,
            TFDS_DATA_DIR or `~/tensorflow_datasets`.

    Raises:
        DatasetNotFoundError: if it is a file.
    """
    environment = os.environ.get("MNISTJAX_DATA_DIR") or os.environ.get("TFDS_DATA_DIR")
    root = Path(data_dir or environment or "~/tensorflow_datasets").expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise DatasetNotFoundError(f"expected the data directory to be a folder, found file {root}")
    return root


def _load_default(root: Path, *, download: bool, fall_back: bool) -> Dataset:
    try:
        return _load_registered(DATASETS["mnist"], root, download=download)
    except DatasetNotFoundError:
        if not fall_back:
            raise
        # Why is half a page; whoever names the data set is told.
        return _load_digits(
            f"scikit-learn digits, embedded: mnist was not found in {root} and not downloaded; "
            "ask for mnist by name to see why"
        )


def _load_registered(info: DatasetInfo, root: Path, *, download: bool) -> Dataset:
    for folder, prefix in _idx_folders(info, root):
        files = find_idx_files(folder, prefix)
        if files:
            return _from_idx(info, root, files, f"IDX files in {folder}")
    # What could not be downloaded into a read-only folder lies in the user's cache.
    download_root = root if is_writable(root) else user_cache_dir() / "tensorflow_datasets"
    unreadable = None
    for place in dict.fromkeys((root, download_root)):
        prepared = find_prepared(info, place)
        if prepared and prepared.is_readable:
            return _from_prepared(info, place, prepared, f"TFDS {prepared.label} in {place}")
        unreadable = unreadable or prepared
    if unreadable:
        raise _not_found(
            info,
            root,
            f"{unreadable.path} was prepared as {unreadable.file_format}, which only TensorFlow "
            "can read; array_record is needed",
        )
    if not download:
        raise _not_found(info, root, "downloading is off")
    try:
        prepared = prepare(info, download_root)
    except DatasetNotFoundError as error:
        raise _not_found(info, root, str(error)) from error
    source = f"downloaded by TFDS ({prepared.label}) into {download_root}"
    return _from_prepared(info, download_root, prepared, source)


def _idx_folders(info: DatasetInfo, root: Path) -> list[tuple[Path, str]]:
    """Returns where the IDX files of a data set may lie, and what their names begin with."""
    family, _, variant = info.name.partition("/")
    if not variant:
        return [(root / family, "")]
    # The published zip file unpacks into a folder "gzip".
    return [(root / family / sub, f"{family}-{variant}-") for sub in ("", "gzip")]


def _not_found(info: DatasetInfo, root: Path, reason: str) -> DatasetNotFoundError:
    folder, prefix = _idx_folders(info, root)[0]
    return DatasetNotFoundError(
        f"data set {info.name!r} not found in {root}: {reason}. Let it be downloaded (needs a "
        f"network), or put the four files {prefix}*-ubyte.gz into {folder}, or point --data-dir "
        "or MNISTJAX_DATA_DIR at a folder where TFDS has prepared it"
    )


def _from_idx(info: DatasetInfo, root: Path, files: IdxFiles, source: str) -> Dataset:
    sizes = (info.train_size, info.test_size)

    def decode() -> Arrays:
        train = read_idx_pair(files.train_images, files.train_labels)
        test = read_idx_pair(files.test_images, files.test_labels)
        where = (str(files.train_images), str(files.test_images))
        return _upright(info, train, test, sizes, where)

    return _cached_dataset(info, root, list(files), decode, source)


def _from_prepared(info: DatasetInfo, root: Path, prepared: Prepared, source: str) -> Dataset:
    sizes = info.prepared_sizes or (info.train_size, info.test_size)

    def decode() -> Arrays:
        train, test = read_prepared(prepared)
        return _upright(info, train, test, sizes, (str(prepared.path), str(prepared.path)))

    return _cached_dataset(info, root, prepared.files(), decode, source)


def _upright(
    info: DatasetInfo,
    train: Pair,
    test: Pair,
    sizes: tuple[int | None, int | None],
    where: tuple[str, str],
) -> Arrays:
    """Turns images and labels as published into what we promise, and checks how many there are."""
    for kind, (images, _), size, place in zip(
        ("train", "test"), (train, test), sizes, where, strict=True
    ):
        if size is not None and len(images) != size:
            raise DataFormatError(
                f"expected {size} {kind} images of {info.name!r}, found {len(images)} in {place}"
            )
    if info.transposed:
        train, test = ((images.swapaxes(1, 2), labels) for images, labels in (train, test))
    offset = np.int32(info.label_offset)
    return _arrays((train[0], train[1] - offset), (test[0], test[1] - offset))


def _arrays(train: Pair, test: Pair) -> Arrays:
    return {
        "train_images": np.ascontiguousarray(train[0]),
        "train_labels": train[1],
        "test_images": np.ascontiguousarray(test[0]),
        "test_labels": test[1],
    }


def _cached_dataset(
    info: DatasetInfo | None,
    root: Path,
    files: list[Path],
    decode: Callable[[], Arrays],
    source: str,
) -> Dataset:
    """Decodes or takes from the cache; without `info` it is made from the data in `root`."""
    arrays = cached_arrays(info.name if info else "folder", root, files, decode)
    train = Split(arrays["train_images"], arrays["train_labels"])
    test = Split(arrays["test_images"], arrays["test_labels"])
    return Dataset(train, test, info or _describe_folder(root, train, test), source)


def _describe_folder(folder: Path, train: Split, test: Split) -> DatasetInfo:
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    height, width, channels = train.images.shape[1:]
    return DatasetInfo(folder.resolve().name, classes, image_shape=(height, width, channels))


def _load_folder(folder: Path) -> Dataset:
    files = find_idx_files(folder)
    if files:

        def decode_idx_files() -> Arrays:
            return _arrays(
                read_idx_pair(files.train_images, files.train_labels),
                read_idx_pair(files.test_images, files.test_labels),
            )

        return _cached_dataset(
            None, folder, list(files), decode_idx_files, f"IDX files in {folder}"
        )
    train = _find_csv(folder, "train")
    if train is None:
        raise DatasetNotFoundError(
            "expected a folder with four IDX files (train-images-idx3-ubyte.gz, ...) or with "
            f"train.csv, found neither in {folder}"
        )
    test = _find_csv(folder, "test")
    if test is not None and kaggle_csv_is_labelled(test):
        source = f"CSV files in {folder} ({train.name}, {test.name})"
    else:
        test = None
        source = f"CSV file {train}; a fixed fifth of it, with the same share of every class, is "
        source += "the test split, for there is no labelled test file"
    csv_files = [path for path in (train, test) if path]
    return _cached_dataset(None, folder, csv_files, lambda: _decode_csv(train, test), source)


def _find_csv(folder: Path, split: str) -> Path | None:
    names = (f"{stem}{split}.csv{end}" for stem in ("", "mnist_") for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _decode_csv(train_path: Path, test_path: Path | None) -> Arrays:
    train = _read_labelled_csv(train_path)
    if test_path is not None:
        return _arrays(train, _read_labelled_csv(test_path))
    kept, held_out = split_validation(Split(*train), _HELD_OUT, seed=0)
    assert held_out is not None
    return _arrays((kept.images, kept.labels), (held_out.images, held_out.labels))


def _read_labelled_csv(path: Path) -> Pair:
    images, labels = read_kaggle_csv(path)
    if labels is None:
        raise DataFormatError(f"expected a column label, found none in {path} line 1")
    return images, labels


def _load_digits(source: str) -> Dataset:
    """Returns scikit-learn's 1,797 digits of 8x8 pixels, drawn as MNIST's are: 20x20 in 28x28."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(small), 28, 28, 1), np.uint8)
    for image, pixels in zip(images, small, strict=True):
        resized = Image.fromarray(pixels).resize((20, 20), Image.Resampling.BICUBIC)
        image[4:24, 4:24, 0] = np.asarray(resized)
    split = Split(images, digits.target.astype(np.int32))
    train, test = split_validation(split, _HELD_OUT, seed=0)
    assert test is not None
    return Dataset(train, test, DATASETS["digits"], source)
