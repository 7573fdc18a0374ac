"""Downloads that stall, break off or are interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from data_files import checksums, mnist_files, random_pair, serving

from mnistjax.data import tfds_download
from mnistjax.data.idx import decode_idx_pair
from mnistjax.data.tfds_prepared import find_prepared, read_prepared
from mnistjax.errors import DatasetNotFoundError

TRAIN, TEST = random_pair(0, 30), random_pair(1, 20)
FILES = mnist_files(TRAIN, TEST)
SUMS = checksums(FILES)
NAME = "t10k-images-idx3-ubyte.gz"


def prepare(folder, server):
    tfds_download.prepare(
        "mnist", folder, decode_pair=decode_idx_pair, url=server.url, checksums=SUMS
    )
    return read_prepared(find_prepared("mnist", folder))


def assert_nothing_partial(folder):
    names = [path.name for path in folder.rglob("*")]
    assert not [name for name in names if "tmp" in name or "incomplete" in name]
    assert not (folder / "mnist").exists()


class Stalling:
    """Makes a server accept requests of one file and send nothing, the first times."""

    def __init__(self, server, times):
        self.left, self.over, self.stalled = times, threading.Event(), threading.Event()
        server.before_file = self

    def __call__(self, name):
        if name == NAME and self.left:
            self.left -= 1
            self.stalled.set()
            self.over.wait(60)


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(tfds_download, "_STALLED_SECONDS", 2)


def test_a_download_that_stalls_once_is_repeated(tmp_path, short_timeout):
    with serving(FILES) as server:
        stalling = Stalling(server, times=1)
        (images, labels), _ = prepare(tmp_path / "new", server)
        stalling.over.set()
    assert (len(images), *np.bincount(labels)) == (30, *[3] * 10)


def test_a_download_that_breaks_off_once_is_repeated(tmp_path):
    with serving(FILES) as server:
        server.cut.add(NAME)
        server.before_file = lambda _: server.cut.clear() if NAME in server.fetched else None
        (images, labels), _ = prepare(tmp_path / "new", server)
    assert (len(images), *np.bincount(labels)) == (30, *[3] * 10)
    # What had arrived whole is not fetched again.
    assert sorted(server.fetched) == sorted([*FILES, NAME])


def test_a_download_that_always_stalls_ends_in_an_error(tmp_path, short_timeout):
    with serving(FILES) as server:
        stalling = Stalling(server, times=100)
        with pytest.raises(DatasetNotFoundError, match=r"(?i)mnist could not be .*timed out") as it:
            prepare(tmp_path / "new", server)
        stalling.over.set()
    assert "\n" not in str(it.value)
    assert 100 - stalling.left == 3
    assert_nothing_partial(tmp_path / "new")


PREPARE = """
import sys
from mnistjax.signals import exits_on_signals
with exits_on_signals():
    from pathlib import Path
    from mnistjax.data import tfds_download
    from mnistjax.data.idx import decode_idx_pair
    tfds_download.prepare(
        "mnist", Path(sys.argv[1]), decode_pair=decode_idx_pair, url=sys.argv[2],
        checksums=eval(sys.argv[3]),
    )
"""


def preparing(folder, server):
    return [sys.executable, "-c", PREPARE, folder, server.url, repr(SUMS)]


def test_processes_that_prepare_the_same_data_set_take_turns(tmp_path):
    with serving(FILES) as server:
        words = preparing(tmp_path / "new", server)
        children = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        for child in children:
            _, err = child.communicate()
            assert child.returncode == 0, err
    assert sorted(server.fetched) == sorted(FILES)
    (images, _), _ = read_prepared(find_prepared("mnist", tmp_path / "new"))
    assert len(images) == 30


@pytest.mark.parametrize("kind", [signal.SIGTERM])
def test_a_signal_ends_a_stalled_download_and_leaves_nothing_partial(tmp_path, kind):
    with serving(FILES) as server:
        stalling = Stalling(server, times=100)
        child = subprocess.Popen(
            preparing(tmp_path / "new", server), stderr=subprocess.PIPE, text=True
        )
        assert stalling.stalled.wait(120)
        child.send_signal(kind)
        _, err = child.communicate()
        stalling.over.set()
    assert child.returncode == 128 + kind
    assert err.endswith("interrupted\n")  # After the progress bar of TFDS.
    assert_nothing_partial(tmp_path / "new")
