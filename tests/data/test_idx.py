from __future__ import annotations

import gzip
import io
import re
import tracemalloc

import numpy as np
import pytest
from data_files import assert_pairs_equal, idx_bytes, random_pair, write_idx_folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnistjax.data.idx import (
    IdxFiles,
    decode_idx,
    decode_idx_pair,
    find_idx_files,
    read_idx_files,
    read_idx_folder,
)
from mnistjax.errors import DataFormatError, DatasetNotFoundError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4)), compress=st.booleans())
def test_idx_gives_back_what_was_written(array, compress):
    data = idx_bytes(array)
    found = decode_idx(gzip.compress(data) if compress else data, "x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def test_content_decides_about_compression(tmp_path):
    pair = random_pair(0, 5)
    for path in write_idx_folder(tmp_path, pair, pair, suffix="").values():
        path.rename(path.with_name(path.name + ".gz"))
    assert_pairs_equal(read_idx_folder(tmp_path)[0], pair)
    for path in tmp_path.iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))
        path.rename(path.with_suffix(""))
    assert_pairs_equal(read_idx_folder(tmp_path)[0], pair)


def damaged_gzip():
    data = bytearray(gzip.compress(idx_bytes(ARRAY)))
    data[-6] ^= 1  # in the checksum
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header of at least 4 bytes, found 0 bytes in FILE"),
        (b"<html>", "(NN dimensions, 1 to 4), found 0x3c68746d in FILE"),
        (b"\0\0\x08\0", "found 0x00000800 in FILE"),
        (b"\0\0\x0d\x01\0\0\0\0", "expected IDX of unsigned bytes (type 0x08), found type 0x0d"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "1 to 4), found 0x000008ff in FILE"),
        (b"\0\0\x08\x46" + bytes(4 * 70), "1 to 4), found 0x00000846 in FILE"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "at most 2,147,483,648 bytes of data, found shape"),
        (b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, "bytes of data, found shape (0, 4294967295"),
        (idx_bytes(ARRAY)[:15], "expected an IDX header of 16 bytes, found 15 bytes in FILE"),
        (idx_bytes(ARRAY)[:-1], "24 bytes of data for shape (2, 3, 4), found 23 in FILE"),
        (idx_bytes(ARRAY) + b"\0", "24 bytes of data for shape (2, 3, 4), found 25 in FILE"),
        (gzip.compress(idx_bytes(ARRAY))[:-3], "whole gzip file, found one that is cut off, FILE"),
        (damaged_gzip(), "expected a sound gzip file, found a damaged one, FILE: CRC"),
        (b"\x1f\x8bno gzip at all", "expected a sound gzip file, found a damaged one, FILE"),
        (gzip.compress(b"\0\0"), "header of at least 4 bytes, found 2 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_wrong_with_an_idx_file_is_said(data, message):
    with pytest.raises(DataFormatError, match=re.escape(message)):
        decode_idx(data, "FILE")


@given(data=st.data(), compress=st.booleans())
def test_no_cut_off_idx_file_is_ever_read(data, compress):
    whole = idx_bytes(ARRAY)
    whole = gzip.compress(whole) if compress else whole
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DataFormatError):
        decode_idx(whole[:length], "x")


@given(position=st.integers(10, 45), flip=st.integers(1, 255))
def test_a_damaged_gzip_file_raises_or_gives_the_right_array(position, flip):
    data = bytearray(gzip.compress(idx_bytes(ARRAY), mtime=0))
    data[position % len(data)] ^= flip
    try:
        found = decode_idx(bytes(data), "x")
    except DataFormatError:
        return
    np.testing.assert_array_equal(found, ARRAY)


@pytest.mark.parametrize("name", IdxFiles._fields)
def test_a_file_that_cannot_be_read_is_said(tmp_path, name):
    write_idx_folder(tmp_path, random_pair(0, 5), random_pair(1, 3))
    files = find_idx_files(tmp_path)
    with pytest.raises(DatasetNotFoundError, match=f"found none at {tmp_path}/nothing"):
        read_idx_files(files._replace(**{name: tmp_path / "nothing"}))
    with pytest.raises(DataFormatError, match=f"found {tmp_path}: Is a directory"):
        read_idx_files(files._replace(**{name: tmp_path}))
    through_a_file = getattr(files, name) / "images"
    with pytest.raises(
        DataFormatError, match=f"expected a readable data file, found {through_a_file}"
    ):
        read_idx_files(files._replace(**{name: through_a_file}))


def decode_arrays(images, labels):
    return decode_idx_pair(idx_bytes(images), idx_bytes(labels), "IMAGES", "LABELS")


def test_images_and_labels_must_belong_together():
    images, labels = np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8)
    for first, second, message in (
        (labels, images, "images in IMAGES and labels in LABELS, found them swapped"),
        (images, images, r"labels \(IDX magic 0x00000801\), found 0x00000803 in LABELS"),
        (labels, labels, r"images \(IDX magic 0x00000803\), found 0x00000801 in IMAGES"),
        (images[:2], labels, "found 2 images in IMAGES and 3 labels in LABELS"),
        (images, labels[:2], "found 3 images in IMAGES and 2 labels in LABELS"),
        (images[:0], labels[:0], r"at least one image, found shape \(0, 28, 28\) in IMAGES"),
        (images[:, :0], labels, r"at least one image, found shape \(3, 0, 28\) in IMAGES"),
    ):
        with pytest.raises(DataFormatError, match=message):
            decode_arrays(first, second)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
@pytest.mark.parametrize("rename", [("", ""), ("-idx", ".idx"), ("t10k", "test")])
def test_a_folder_is_read_under_every_usual_name(tmp_path, suffix, prefix, rename):
    train, test = random_pair(0, 5), random_pair(1, 3)
    for path in write_idx_folder(tmp_path, train, test, prefix=prefix, suffix=suffix).values():
        path.rename(path.with_name(path.name.replace(*rename) if rename[0] else path.name))
    found = read_idx_folder(tmp_path, prefix)
    assert_pairs_equal(found[0], train)
    assert_pairs_equal(found[1], test)


def test_a_folder_lacking_files_names_one(tmp_path):
    assert find_idx_files(tmp_path) is None
    with pytest.raises(DatasetNotFoundError, match=r"t10k-labels-idx1-ubyte\.gz, found none"):
        read_idx_folder(tmp_path)
    paths = write_idx_folder(tmp_path, random_pair(0, 5), random_pair(1, 3))
    paths["t10k-labels-idx1-ubyte"].unlink()
    with pytest.raises(DataFormatError, match=r"four IDX files in .*, found no t10k-labels-idx1"):
        find_idx_files(tmp_path)


@pytest.mark.mnist
def test_the_real_files_are_read(mnist_dir):
    (images, labels), (test_images, test_labels) = read_idx_folder(mnist_dir / "mnist")
    assert (images.shape, test_images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert np.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert np.bincount(test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert round(float(images.mean()) / 255, 4) == 0.1307


def test_a_file_that_unpacks_to_more_than_its_header_says_is_not_unpacked():
    """A gigabyte of zeros in a megabyte: the peak of memory stays that of the file."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        file.write(idx_bytes(ARRAY))
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(
        DataFormatError, match="expected at most 40 unpacked bytes, found more in x"
    ):
        decode_idx(bomb.getvalue(), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(bomb.getvalue())
