"""Data sets prepared by TensorFlow Datasets (TFDS), without TensorFlow.

TFDS's own builders need TensorFlow to unpack the files and to encode PNG. Those here derive from
them and keep their URLs, checksums, download cache, progress bars, names, versions and records;
they only read the files with our reader and let Pillow encode the images.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import types
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.data.files import Pair, decode_idx, pair_idx, read_idx_pair
from mnistjax.data.prepared import Prepared, find_prepared
from mnistjax.data.registry import DatasetInfo
from mnistjax.errors import DataFormatError, DatasetNotFoundError

Checksums = Mapping[str, tuple[int, str]]

_PROBE_SECONDS = 10.0
_READ_AHEAD = 1000  # records read at once: half the time of one by one


def read_prepared(prepared: Prepared) -> tuple[Pair, Pair]:
    """Decodes the records of a prepared data set.

    Args:
        prepared: one that `is_readable`.

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
        raise DataFormatError(
            f"expected the records of {prepared.label}, found {_one_line(error)} in {prepared.path}"
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


def prepare(
    info: DatasetInfo,
    data_dir: Path,
    *,
    url: str | None = None,
    checksums: Checksums | None = None,
) -> Prepared:
    """Downloads and prepares a data set; what is there already is used again.

    Every file is checked against its checksum. After a failure nothing half-written stays.

    Args:
        info: a data set with a `builder`.
        data_dir: the folder to prepare it in; made if it is missing.
        url: another place to download from, in place of the builder's own: the address of the
            folder with the four files, ending in "/", or of the zip file for EMNIST.
        checksums: (size in bytes, SHA-256 in hex) by file name, in place of TFDS's own.

    Returns:
        The prepared data set.

    Raises:
        DatasetNotFoundError: if the download fails; the message says why.
        DataFormatError: if a file's content is not what its checksum says.
        ValueError: if a file below `url` has no known checksum.
    """
    found = find_prepared(info, data_dir)
    if found is None:
        parent = _builder_class(info)
        urls = _source_urls(url or parent.URL, is_zip="/" in str(info.builder))
        _check_reachable(info, next(iter(urls.values())))
        _download_and_prepare(info, data_dir, _derive(parent, urls, checksums or {}))
        found = find_prepared(info, data_dir)
    if found is None or not found.is_readable:
        raise DatasetNotFoundError(
            f"expected {info.builder} as TFDS prepares it in the format array_record, "
            f"found {found.file_format if found else 'none'} in {data_dir}"
        )
    return found


def _builder_class(info: DatasetInfo) -> Any:
    from tensorflow_datasets.image_classification import mnist

    return {
        "mnist": mnist.MNIST,
        "fashion_mnist": mnist.FashionMNIST,
        "kmnist": mnist.KMNIST,
        "emnist": mnist.EMNIST,
    }[str(info.builder).partition("/")[0]]


def _derive(parent: Any, urls: Mapping[str, str], checksums: Checksums) -> Any:
    """Derives the builder that reads without TensorFlow, downloading from `urls`."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    # TFDS finds checksums by the class's own module, and by URL: a subclass, or a mirror, has none.
    known = {_file_name(address): entry for address, entry in (parent.url_infos or {}).items()}
    for file_name, (size, digest) in checksums.items():
        known[file_name] = UrlInfo(size=Size(size), checksum=digest, filename=file_name)
    names = {address: _file_name(address) for address in urls.values()}
    members = {
        "__module__": __name__,
        "name": parent.name,
        "source_urls": urls,
        "url_infos": {address: known[name] for address, name in names.items() if name in known},
    }
    return types.new_class(
        parent.__name__,
        (_ReadsIdx, parent),
        {"skip_registration": True},
        lambda namespace: namespace.update(members),
    )


def _download_and_prepare(info: DatasetInfo, data_dir: Path, builder_class: Any) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    # TFDS prints to stdout, which belongs to the caller's results.
    with (
        _one_line_errors(info, data_dir),
        _no_leftovers(data_dir, str(info.builder)),
        contextlib.redirect_stdout(sys.stderr),
    ):
        builder = builder_class(
            data_dir=str(data_dir), config=str(info.builder).partition("/")[2] or None
        )
        builder.download_and_prepare(file_format="array_record", download_config=config)


def _source_urls(url: str, *, is_zip: bool) -> dict[str, str]:
    if is_zip:
        return {"zip": url}
    return {
        f"{split}_{kind}": urllib.parse.urljoin(url, f"{stem}-{kind}-idx{rank}-ubyte.gz")
        for split, stem in (("train", "train"), ("test", "t10k"))
        for kind, rank in (("images", 3), ("labels", 1))
    }


def _file_name(url: str) -> str:
    return urllib.parse.urlparse(url).path.rpartition("/")[2]


class _ReadsIdx:
    """What takes the place of TensorFlow in a builder of TFDS."""

    source_urls: Mapping[str, str]
    builder_config: Any

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        # One at a time: after a failure no other thread is still writing.
        files = {name: Path(dl_manager.download(url)) for name, url in self.source_urls.items()}
        return {split: self._generate_examples(split, files) for split in ("train", "test")}

    def _generate_examples(
        self, split: str, files: Mapping[str, Path]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        config = self.builder_config
        if config is None:
            images, labels = read_idx_pair(files[f"{split}_images"], files[f"{split}_labels"])
        else:
            images, labels = _read_zip(files["zip"], f"gzip/emnist-{config.name}-{split}")
            kept = getattr(config, f"{split}_examples")
            images, labels = images[:kept], labels[:kept]
        for index in range(len(labels)):
            image = Image.fromarray(images[index, :, :, 0])
            yield index, {"image": image, "label": int(labels[index])}


def _read_zip(path: Path, stem: str) -> Pair:
    names = [f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz"]
    where = [f"{path}:{name}" for name in names]
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = map(decode_idx, map(archive.read, names), where)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataFormatError(
            f"expected a zip file with {names[0]} and {names[1]}, "
            f"found {_one_line(error)} in {path}"
        ) from error
    return pair_idx(images, labels, *where)


def _check_reachable(info: DatasetInfo, url: str) -> None:
    """Fails at once where there is no network: TFDS would try for three minutes."""
    import requests

    try:
        status = requests.head(url, timeout=_PROBE_SECONDS, allow_redirects=True).status_code
    except requests.RequestException as error:
        raise DatasetNotFoundError(
            f"{info.name} could not be downloaded: no answer from {url} ({_reason(error)})"
        ) from error
    if status >= 500:  # TFDS reports the others, some of which concern HEAD requests alone
        raise DatasetNotFoundError(
            f"{info.name} could not be downloaded: HTTP status {status} from {url}"
        )


@contextlib.contextmanager
def _one_line_errors(info: DatasetInfo, data_dir: Path) -> Iterator[None]:
    from tensorflow_datasets.core.download.download_manager import (
        NonMatchingChecksumError,
    )
    from tensorflow_datasets.core.download.util import DownloadError

    try:
        yield
    except (DataFormatError, DatasetNotFoundError):
        raise
    except NonMatchingChecksumError as error:
        what = re.sub(r", downloaded to .*(?=, has wrong)| To debug.*", "", _one_line(error))
        raise DataFormatError(f"{info.name} could not be downloaded: {what}") from error
    except (DownloadError, OSError) as error:
        if find_prepared(info, data_dir):  # by another process, which was quicker
            return
        raise DatasetNotFoundError(
            f"{info.name} could not be prepared: {_reason(error)}"
        ) from error


@contextlib.contextmanager
def _no_leftovers(data_dir: Path, builder: str) -> Iterator[None]:
    """On failure removes the partial downloads and the empty folders that TFDS leaves."""
    downloads = data_dir / "downloads"
    name = builder.partition("/")[0]
    folders = [downloads / "extracted", downloads / name, downloads, data_dir / builder]
    folders += [data_dir / name, data_dir]
    made = [folder for folder in folders if not folder.exists()]
    before = set(downloads.rglob("*.tmp.*"))
    try:
        yield
    except BaseException:
        for partial in set(downloads.rglob("*.tmp.*")) - before:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _reason(error: Exception) -> str:
    """Words an error; of a network error, which wraps others, the one inside."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    inner = getattr(inner, "reason", inner)
    text = inner.args[0] if getattr(inner, "args", None) else inner
    return _one_line(text if isinstance(text, str) else inner)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
