"""Downloads data sets and prepares them with TensorFlow Datasets (TFDS), without TensorFlow.

The builders of TFDS need TensorFlow to unpack the files and to encode PNG. The subclasses here keep
their URLs, checksums, download cache, progress bars, names, versions and records, but read the
files with a given reader and encode the images with Pillow.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sys
import types
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.atomic import removed_on_exit
from mnistjax.data.cache import user_cache_dir
from mnistjax.errors import DataFormatError, DatasetNotFoundError

Pair = tuple[np.ndarray, np.ndarray]
DecodePair = Callable[[bytes, bytes, str, str], Pair]
Checksums = Mapping[str, tuple[int, str]]

_PROBE_SECONDS = 10.0
# For each part of a download that a server sends; TFDS itself would wait forever.
_STALLED_SECONDS = 30.0
_ATTEMPTS = 3


def prepare(
    builder: str,
    data_dir: Path,
    *,
    decode_pair: DecodePair,
    url: str | None = None,
    checksums: Checksums | None = None,
) -> None:
    """Downloads and prepares a data set, reusing files that are already downloaded.

    Every file is checked against its checksum. A failure leaves no partial files behind. Several
    processes of a user take turns, and the later ones find what the first one has prepared.

    Args:
        builder: the name of the TFDS builder, for example "emnist/letters".
        data_dir: the folder to prepare it in; created if it is missing.
        decode_pair: `(images, labels, images_name, labels_name) -> (images, labels)`, the reader
            of IDX files: takes their content, plain or compressed by gzip, and returns
            uint8 [N, H, W, 1] and int32 [N].
        url: where to download from instead of the builder's own address: the address of the
            folder with the four files, ending in "/", or of the zip file for EMNIST.
        checksums: (size in bytes, SHA-256 in hex) by file name, instead of those of TFDS.

    Raises:
        DatasetNotFoundError: if the download fails; the message says why.
        DataFormatError: if the content of a file does not match its checksum.
        ValueError: if a file below `url` has no known checksum.
    """
    parent = _builder_class(builder)
    urls = _source_urls(url or parent.URL, is_zip="/" in builder)
    for address in urls.values():
        _check_reachable(builder, address)
    derived = _derive(parent, urls, checksums or {}, decode_pair)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _download_and_prepare(builder, data_dir, derived)
            return
        except DatasetNotFoundError as error:
            # What was downloaded whole is not fetched again.
            if attempt == _ATTEMPTS or not _is_interruption(error.__cause__):
                raise


def _builder_class(builder: str) -> Any:
    from tensorflow_datasets.image_classification import mnist

    return {
        "mnist": mnist.MNIST,
        "fashion_mnist": mnist.FashionMNIST,
        "kmnist": mnist.KMNIST,
        "emnist": mnist.EMNIST,
    }[builder.partition("/")[0]]


def _is_interruption(error: BaseException | None) -> bool:
    """Returns whether a transfer broke off or stalled, and not for example the disk is full."""
    import requests
    import urllib3

    if not isinstance(error, requests.RequestException):
        return False
    # TFDS has tried ten times where not even an answer came.
    return not any(isinstance(it, urllib3.exceptions.MaxRetryError) for it in error.args)


def _derive(
    parent: Any, urls: Mapping[str, str], checksums: Checksums, decode_pair: DecodePair
) -> Any:
    """Derives the builder that reads without TensorFlow, downloading from `urls`."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    # TFDS looks up checksums by the class's module and by URL: a subclass or a mirror has none.
    known = {_file_name(address): entry for address, entry in (parent.url_infos or {}).items()}
    for file_name, (size, digest) in checksums.items():
        known[file_name] = UrlInfo(size=Size(size), checksum=digest, filename=file_name)
    names = {address: _file_name(address) for address in urls.values()}
    members = {
        "__module__": __name__,
        "name": parent.name,
        "source_urls": urls,
        "decode_pair": staticmethod(decode_pair),
        "url_infos": {address: known[name] for address, name in names.items() if name in known},
    }
    return types.new_class(
        parent.__name__,
        (_ReadsIdx, parent),
        {"skip_registration": True},
        lambda namespace: namespace.update(members),
    )


def _download_and_prepare(name: str, data_dir: Path, builder_class: Any) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    # TFDS prints to stdout, which is reserved for the results of the caller.
    with (
        _one_line_errors(name),
        _alone(data_dir),
        _no_leftovers(data_dir, name),
        _read_timeout(_STALLED_SECONDS),
        contextlib.redirect_stdout(sys.stderr),
    ):
        builder = builder_class(data_dir=str(data_dir), config=name.partition("/")[2] or None)
        builder.download_and_prepare(file_format="array_record", download_config=config)


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Waits until no other process of this user prepares a data set in a folder."""
    from filelock import FileLock

    digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()
    lock = user_cache_dir() / "locks" / digest[:16]
    with contextlib.ExitStack() as stack:
        # Some file systems are read-only, or have no locks.
        with contextlib.suppress(OSError, NotImplementedError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock))
        yield


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
    """Mixin that replaces the TensorFlow code of a TFDS builder."""

    source_urls: Mapping[str, str]
    decode_pair: DecodePair
    builder_config: Any

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        # One download at a time, so that after a failure no other thread is still writing.
        files = {name: Path(dl_manager.download(url)) for name, url in self.source_urls.items()}
        return {split: self._generate_examples(split, files) for split in ("train", "test")}

    def _generate_examples(
        self, split: str, files: Mapping[str, Path]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        config = self.builder_config
        if config is None:
            first, second = files[f"{split}_images"], files[f"{split}_labels"]
            images, labels = self.decode_pair(
                first.read_bytes(), second.read_bytes(), str(first), str(second)
            )
        else:
            stem = f"gzip/emnist-{config.name}-{split}"
            images, labels = self.decode_pair(*_unzip(files["zip"], stem))
            kept = getattr(config, f"{split}_examples")
            images, labels = images[:kept], labels[:kept]
        for index in range(len(labels)):
            image = Image.fromarray(images[index, :, :, 0])
            yield index, {"image": image, "label": int(labels[index])}


def _unzip(path: Path, stem: str) -> tuple[bytes, bytes, str, str]:
    """Returns the contents of images and labels in EMNIST's zip file, and their names."""
    images, labels = f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz"
    try:
        with zipfile.ZipFile(path) as zipped:
            return zipped.read(images), zipped.read(labels), f"{path}:{images}", f"{path}:{labels}"
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataFormatError(
            f"expected a zip file with {images} and {labels}, found {_one_line(error)} in {path}"
        ) from error


def _check_reachable(name: str, url: str) -> None:
    """Raises at once if there is no network, where TFDS would retry for three minutes."""
    import requests

    try:
        status = requests.head(url, timeout=_PROBE_SECONDS, allow_redirects=True).status_code
    except requests.RequestException as error:
        raise DatasetNotFoundError(
            f"{name} could not be downloaded: no answer from {url} ({_reason(error)})"
        ) from error
    if status >= 500:  # TFDS reports other statuses, some of which concern only HEAD requests
        raise DatasetNotFoundError(
            f"{name} could not be downloaded: HTTP status {status} from {url}"
        )


@contextlib.contextmanager
def _read_timeout(seconds: float) -> Iterator[None]:
    """Lets requests that have no timeout give up when a server sends nothing for so long."""
    import requests

    adapter: Any = requests.adapters.HTTPAdapter
    send = adapter.send

    def send_with_timeout(*args: Any, **kwargs: Any) -> requests.Response:
        return send(*args, **{**kwargs, "timeout": kwargs.get("timeout") or seconds})

    # TFDS makes its own session and offers no setting for it.
    adapter.send = send_with_timeout
    try:
        yield
    finally:
        adapter.send = send


@contextlib.contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
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
        raise DataFormatError(f"{name} could not be downloaded: {what}") from error
    except (DownloadError, OSError) as error:
        raise DatasetNotFoundError(f"{name} could not be prepared: {_reason(error)}") from error


@contextlib.contextmanager
def _no_leftovers(data_dir: Path, builder: str) -> Iterator[None]:
    """On failure or a signal, removes partial downloads and empty folders that TFDS leaves."""
    downloads = data_dir / "downloads"
    name = builder.partition("/")[0]
    folders = [downloads / "extracted", downloads / name, downloads, data_dir / builder]
    folders += [data_dir / name, data_dir]
    made = [folder for folder in folders if not folder.exists()]

    def find_partial() -> set[Path]:
        incomplete = (data_dir / builder).glob("*incomplete*")
        return {*downloads.rglob("*.tmp.*"), *incomplete}

    before = find_partial()

    def remove() -> None:
        for partial in find_partial() - before:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    with removed_on_exit(remove):
        try:
            yield
        except BaseException:
            remove()
            raise


def _reason(error: Exception) -> str:
    """Returns the message of an error, or of the error that a network error wraps."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    inner = getattr(inner, "reason", inner)
    text = inner.args[0] if getattr(inner, "args", None) else inner
    return _one_line(text if isinstance(text, str) else inner)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
