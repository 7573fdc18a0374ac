"""Small data files, made by other means than the package's own, and a server for them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import struct
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

IDX_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def random_pair(seed, count, classes=10):
    """Images uint8 [count, 28, 28, 1] and labels int32 [count] with every class in turn."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return images, (np.arange(count) % classes).astype(np.int32)


def assert_pairs_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def assert_holds(dataset, train, test):
    for split, (images, labels) in ((dataset.train, train), (dataset.test, test)):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


def idx_bytes(array) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pair_bytes(pair) -> tuple[bytes, bytes]:
    images, labels = pair
    return idx_bytes(images[..., 0]), idx_bytes(labels)


def write_idx_folder(folder: Path, train, test, *, prefix="", suffix=".gz") -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, pair in (("train", train), ("test", test)):
        for name, data in zip(IDX_NAMES[split], pair_bytes(pair), strict=True):
            path = folder / f"{prefix}{name}{suffix}"
            path.write_bytes(gzip.compress(data, mtime=0) if suffix else data)
            paths[name] = path
    return paths


def csv_text(images, labels=None, *, header="pixel") -> str:
    if header == "pixel":
        names = [f"pixel{i}" for i in range(784)]
    else:
        names = [f"{row + 1}x{column + 1}" for row in range(28) for column in range(28)]
    rows = [",".join(names if labels is None else ["label", *names])]
    for index, image in enumerate(images):
        values = [str(value) for value in image.ravel().tolist()]
        rows.append(",".join(values if labels is None else [str(labels[index]), *values]))
    return "\n".join(rows) + "\n"


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def mnist_files(train, test) -> dict[str, bytes]:
    """What a server of the four compressed files holds, by file name."""
    return {
        f"{name}.gz": gzip.compress(data, mtime=0)
        for split, pair in (("train", train), ("test", test))
        for name, data in zip(IDX_NAMES[split], pair_bytes(pair), strict=True)
    }


def checksums(files: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    return {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}


class FileServer(ThreadingHTTPServer):
    """Serves `files` on 127.0.0.1; those in `cut` break off half-way; counts what was fetched."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.cut: set[str] = set()
        self.statuses: dict[str, int] = {}
        self.fetched: list[str] = []
        self.before_file = lambda name: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        name = self._answer()
        if name is None:
            return
        self.server.before_file(name)
        self.server.fetched.append(name)
        data = self.server.files[name]
        self.wfile.write(data[: len(data) // 2] if name in self.server.cut else data)

    def _answer(self) -> str | None:
        name = self.path.lstrip("/")
        status = self.server.statuses.get(name, 200 if name in self.server.files else 404)
        self.send_response(status)
        if status == 200:
            self.send_header("Content-Length", str(len(self.server.files[name])))
        self.end_headers()
        return name if status == 200 else None


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    server = FileServer(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by_content(pair):
    """Images and labels in an order of their own: TFDS shuffles what it prepares."""
    images, labels = pair
    rows = images.reshape(len(images), -1)
    order = np.lexsort(rows[:, ::-1].T[:64])
    return images[order], labels[order]


def assert_same_examples(found, expected):
    for one, other in zip(by_content(found), by_content(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
