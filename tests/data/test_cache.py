from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.numpy

from mnistjax.atomic import atomic_path, write_text_atomically
from mnistjax.data.cache import cache_files, cached_arrays, is_writable

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
    return cached_arrays("emnist/letters", data_dir, [data_dir / "source"], list(ARRAYS), decode)


def cache_of(data_dir):
    return data_dir / ".mnistjax" / "emnist-letters.cache"


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
    for array in found.values():
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
    assert list((data_dir / ".mnistjax").iterdir()) == [cache_of(data_dir)]


def test_the_cache_is_a_digest_and_a_file_of_safetensors(data_dir):
    load(data_dir, Decoder())
    content = cache_of(data_dir).read_bytes()
    assert content[:32] == hashlib.sha256(content[32:]).digest()
    assert_same(safetensors.numpy.load(content[32:]))


@pytest.mark.parametrize("change", ["content", "unpacked", "name"])
def test_a_changed_source_makes_the_cache_stale(data_dir, change):
    source = data_dir / "source"
    os.utime(source, ns=(1, 1))
    load(data_dir, Decoder())
    if change == "content":
        source.write_bytes(b"other bytes")
    elif change == "unpacked":
        # Of the same name, size and time, as from an archive that sets the times of its files.
        source.write_bytes(b"BYTES")
        os.utime(source, ns=(1, 1))
    else:
        source = source.rename(data_dir / "renamed")
    decode = Decoder({"train_labels": np.zeros(2, np.int32)})
    found = cached_arrays("emnist/letters", data_dir, [source], ["train_labels"], decode)
    assert decode.calls == 1
    assert list(found) == ["train_labels"]
    again = cached_arrays("emnist/letters", data_dir, [source], ["train_labels"], decode)
    assert decode.calls == 1
    np.testing.assert_array_equal(again["train_labels"], [0, 0])


@pytest.mark.parametrize("change", ["time", "copy"])
def test_the_same_content_with_another_time_keeps_the_cache(data_dir, change):
    load(data_dir, Decoder())
    if change == "time":
        os.utime(data_dir / "source", ns=(1, 1))
    else:
        shutil.copy(data_dir / "source", data_dir / "copy")
        (data_dir / "copy").replace(data_dir / "source")
    decode = Decoder()
    assert_same(load(data_dir, decode))
    assert decode.calls == 0


@pytest.fixture
def frozen(data_dir, user_cache):
    """A cache that can be damaged and is not written anew."""
    load(data_dir, Decoder())
    cache_of(data_dir).parent.chmod(0o555)
    user_cache.write_text("a file where a folder is needed")
    yield cache_of(data_dir)
    cache_of(data_dir).parent.chmod(0o755)


def test_every_flipped_byte_is_noticed(data_dir, frozen):
    whole, decode = frozen.read_bytes(), Decoder()
    for position, byte in enumerate(whole):
        flipped = byte ^ (1 << position % 8)
        frozen.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        assert_same(load(data_dir, decode))
        assert decode.calls == position + 1
    frozen.write_bytes(whole)
    load(data_dir, decode)
    assert decode.calls == len(whole)


def test_a_cut_and_an_addition_are_noticed(data_dir, frozen):
    whole, decode = frozen.read_bytes(), Decoder()
    cuts = [whole[:length] for length in range(0, len(whole), 7)]
    for calls, content in enumerate([*cuts, whole[:-1], whole + b"0"], start=1):
        frozen.write_bytes(content)
        assert_same(load(data_dir, decode))
        assert decode.calls == calls


def test_a_damaged_cache_is_written_anew(data_dir):
    load(data_dir, Decoder())
    whole = cache_of(data_dir).read_bytes()
    cache_of(data_dir).write_bytes(whole[:-1])
    decode = Decoder()
    for _ in range(2):
        assert_same(load(data_dir, decode))
    assert decode.calls == 1
    assert cache_of(data_dir).read_bytes() == whole


def with_header(text):
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda key: b"",
        lambda key: b"\xff" * 8,
        lambda key: with_header("[]"),
        lambda key: with_header("{}"),
        lambda key: with_header("{"),
        lambda key: with_header('{"__metadata__": 1}'),
        lambda key: safetensors.numpy.save(ARRAYS),
        lambda key: safetensors.numpy.save(ARRAYS, {"key": key.replace("letters", "others")}),
        lambda key: safetensors.numpy.save({"train_labels": ARRAYS["train_labels"]}, {"key": key}),
        lambda key: safetensors.numpy.save({"a": np.zeros(2)}, {"key": key}),
        lambda key: safetensors.numpy.save(ARRAYS, {"key": key})[:-8],
    ],
)
def test_a_cache_of_another_make_is_passed_over(data_dir, change):
    """Also where the digest is right."""
    load(data_dir, Decoder())
    plain = data_dir / "plain.safetensors"
    plain.write_bytes(cache_of(data_dir).read_bytes()[32:])
    with safetensors.safe_open(plain, "numpy") as opened:
        payload = change(opened.metadata()["key"])
    cache_of(data_dir).write_bytes(hashlib.sha256(payload).digest() + payload)
    decode = Decoder()
    assert_same(load(data_dir, decode))
    assert decode.calls == 1


@pytest.mark.parametrize("place", ["beside", "user"])
def test_the_folder_of_an_earlier_format_is_removed(data_dir, place):
    beside, in_user_cache = cache_files("emnist/letters", data_dir)
    if place == "user":
        beside.parent.write_text("a file where a folder is needed")
    cache = beside if place == "beside" else in_user_cache
    old, other = cache.with_suffix(""), cache.parent / "mnist"
    for folder in (old, other):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    assert_same(load(data_dir, Decoder()))
    assert sorted(cache.parent.iterdir()) == sorted([cache, other])


def test_an_unwritable_folder_is_cached_in_the_users_cache(data_dir, user_cache):
    (data_dir / ".mnistjax").write_text("a file where a folder is needed")
    decode = Decoder()
    for _ in range(2):
        assert_same(load(data_dir, decode))
    assert decode.calls == 1
    beside, in_user_cache = cache_files("emnist/letters", data_dir)
    assert not beside.exists()
    assert in_user_cache.is_file()
    assert in_user_cache.parent == user_cache / "mnistjax"


def test_two_folders_do_not_share_the_users_cache(tmp_path):
    first, second = (cache_files("mnist", tmp_path / name)[1] for name in "ab")
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
    def fail(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert_same(load(data_dir, Decoder()))
    assert list((data_dir / ".mnistjax").iterdir()) == []
    assert list((user_cache / "mnistjax").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_later(data_dir):
    cache = cache_of(data_dir)
    cache.parent.mkdir()
    for age in (0, 7200):
        with pytest.raises(KeyboardInterrupt), atomic_path(cache) as temporary:
            raise KeyboardInterrupt
        temporary.write_bytes(b"half")
        os.utime(temporary, (time.time() - age, time.time() - age))
    recent, old = sorted(cache.parent.iterdir(), key=lambda path: -path.stat().st_mtime)
    load(data_dir, Decoder())
    assert recent.exists()
    assert not old.exists()


def test_two_writers_at_once_both_succeed(data_dir):
    barrier, found = threading.Barrier(2, timeout=60), []

    def decode():
        barrier.wait()  # both have seen that there is no cache
        return ARRAYS

    threads = [threading.Thread(target=lambda: found.append(load(data_dir, decode))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for arrays in found:
        assert_same(arrays)
    decoder = Decoder()
    assert_same(load(data_dir, decoder))
    assert decoder.calls == 0
    assert list(cache_of(data_dir).parent.iterdir()) == [cache_of(data_dir)]


def test_concurrent_readers_and_writers_all_get_the_arrays(data_dir):
    """Each thread also makes the cache stale again and again for the others."""

    def work(seed):
        for step in range(30):
            if (seed + step) % 3 == 0:
                write_text_atomically(data_dir / "source", f"{seed} {step}")
            assert_same(load(data_dir, Decoder()))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))  # Raises what a thread raised.
    assert list((data_dir / ".mnistjax").iterdir()) == [cache_of(data_dir)]
