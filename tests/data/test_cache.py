from __future__ import annotations

import json
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistjax.data.cache import cache_folders, cached_arrays, is_writable

ARRAYS = {
    "train_images": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1),
    "train_labels": np.array([2, 0, 1], np.int32),
}


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "source").write_bytes(b"bytes")
    return folder


class Decoder:
    """Counts how often it is called."""

    def __init__(self, arrays=ARRAYS):
        self.arrays, self.calls = arrays, 0

    def __call__(self):
        self.calls += 1
        return self.arrays


def load(data_dir, decode):
    return cached_arrays("emnist/letters", data_dir, [data_dir / "source"], decode)


def assert_same(found):
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_second_load_maps_the_same_arrays_read_only(data_dir):
    decode = Decoder()
    assert_same(load(data_dir, decode))
    found = load(data_dir, decode)
    assert decode.calls == 1
    assert_same(found)
    assert all(isinstance(a, np.memmap) and not a.flags.writeable for a in found.values())
    assert [path.name for path in (data_dir / ".mnistjax").iterdir()] == ["emnist-letters"]


@pytest.mark.parametrize("change", ["content", "time", "name"])
def test_a_changed_source_makes_the_cache_stale(data_dir, change):
    load(data_dir, Decoder())
    source = data_dir / "source"
    if change == "content":
        source.write_bytes(b"other bytes")
    elif change == "time":
        os.utime(source, ns=(1, 1))
    else:
        source = source.rename(data_dir / "renamed")
    decode = Decoder({"train_labels": np.zeros(2, np.int32)})
    found = cached_arrays("emnist/letters", data_dir, [source], decode)
    assert decode.calls == 1
    assert list(found) == ["train_labels"]
    again = cached_arrays("emnist/letters", data_dir, [source], decode)
    assert decode.calls == 1
    np.testing.assert_array_equal(again["train_labels"], [0, 0])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["train_images.npy", "train_labels.npy", "manifest.json"]),
    place=st.floats(0, 1, exclude_max=True),
    damage=st.sampled_from(["flip", "cut", "empty", "remove"]),
)
def test_a_damaged_cache_is_never_an_error_and_never_wrong(data_dir, name, place, damage):
    load(data_dir, Decoder())
    path = data_dir / ".mnistjax" / "emnist-letters" / name
    data = bytearray(path.read_bytes())
    position = int(place * len(data))
    if damage == "flip":
        data[position] ^= 1
    path.write_bytes(data[: position if damage == "cut" else 0 if damage == "empty" else None])
    if damage == "remove":
        path.unlink()
    assert_same(load(data_dir, Decoder()))
    decode = Decoder()
    assert_same(load(data_dir, decode))
    assert decode.calls == 0


@pytest.mark.parametrize("text", ["[]", "{}", "null", "[", '{"key": 1, "arrays": []}'])
def test_a_manifest_of_another_make_is_passed_over(data_dir, text):
    load(data_dir, Decoder())
    (data_dir / ".mnistjax" / "emnist-letters" / "manifest.json").write_text(text)
    decode = Decoder()
    assert_same(load(data_dir, decode))
    assert decode.calls == 1


def test_pickled_arrays_are_not_loaded(data_dir):
    """Even where the checksum agrees."""
    import hashlib

    load(data_dir, Decoder())
    folder = data_dir / ".mnistjax" / "emnist-letters"
    np.save(folder / "train_labels.npy", np.array([None, 1], object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "train_labels.npy").read_bytes()).hexdigest()
    manifest["arrays"]["train_labels"].update(sha256=digest, dtype="object", shape=[2])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    decode = Decoder()
    assert_same(load(data_dir, decode))
    assert decode.calls == 1


def test_an_unwritable_folder_is_cached_in_the_users_cache(data_dir, user_cache):
    (data_dir / ".mnistjax").write_text("a file where a folder is needed")
    decode = Decoder()
    for _ in range(2):
        assert_same(load(data_dir, decode))
    assert decode.calls == 1
    beside, in_user_cache = cache_folders("emnist/letters", data_dir)
    assert not beside.exists()
    assert in_user_cache.is_dir()
    assert in_user_cache.parent == user_cache / "mnistjax"


def test_two_folders_do_not_share_the_users_cache(tmp_path):
    first, second = (cache_folders("mnist", tmp_path / name)[1] for name in "ab")
    assert first != second


def test_without_any_place_to_write_it_works_uncached(data_dir, user_cache):
    (data_dir / ".mnistjax").write_text("")
    user_cache.write_text("")
    decode = Decoder()
    for calls in (1, 2):
        assert_same(load(data_dir, decode))
        assert decode.calls == calls


def test_a_folder_without_write_permission_stays_as_it_is(data_dir):
    """Also for root, whom permissions do not stop."""
    data_dir.chmod(0o555)
    try:
        assert not is_writable(data_dir)
        assert not is_writable(data_dir / "new" / "folder")
        assert_same(load(data_dir, Decoder()))
        assert [path.name for path in data_dir.iterdir()] == ["source"]
    finally:
        data_dir.chmod(0o755)


def test_a_failing_decoder_leaves_nothing_behind(data_dir):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        load(data_dir, fail)
    assert [path.name for path in data_dir.iterdir()] == ["source"]


def test_a_failing_write_leaves_nothing_behind(data_dir, user_cache, monkeypatch):
    def fail(path, array, **kwargs):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", fail)
    assert_same(load(data_dir, Decoder()))
    assert list((data_dir / ".mnistjax").iterdir()) == []
    assert list((user_cache / "mnistjax").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_later(data_dir):
    recent, old = (data_dir / ".mnistjax" / f".tmp-{name}" for name in ("recent", "old"))
    for folder in (recent, old):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    load(data_dir, Decoder())
    assert recent.exists()
    assert not old.exists()


def test_concurrent_readers_and_writers_all_get_the_arrays(data_dir):
    """Each thread also makes the cache stale again and again for the others."""
    failures = []

    def work(seed):
        for step in range(60):
            if (seed + step) % 3 == 0:
                os.utime(data_dir / "source", ns=(seed, step))
            try:
                assert_same(load(data_dir, Decoder()))
            except Exception as error:  # whatever it is, the main thread is to see it
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in (data_dir / ".mnistjax").iterdir()] == ["emnist-letters"]
