from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from data_files import csv_text, idx_bytes, random_pair, write_idx_folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnistjax.data.files import (
    decode_idx,
    find_idx_files,
    kaggle_csv_is_labelled,
    read_idx,
    read_idx_folder,
    read_idx_pair,
    read_kaggle_csv,
)
from mnistjax.errors import DataFormatError, DatasetNotFoundError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def assert_pairs_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4)), compress=st.booleans())
def test_idx_gives_back_what_was_written(array, compress):
    data = idx_bytes(array)
    found = decode_idx(gzip.compress(data) if compress else data, "x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def test_content_decides_about_compression(tmp_path):
    (tmp_path / "plain.gz").write_bytes(idx_bytes(ARRAY))
    (tmp_path / "packed").write_bytes(gzip.compress(idx_bytes(ARRAY)))
    for name in ("plain.gz", "packed"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), ARRAY)


def damaged_gzip():
    data = bytearray(gzip.compress(idx_bytes(ARRAY)))
    data[-6] ^= 1  # in the checksum
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header of at least 4 bytes, found 0 bytes in FILE"),
        (b"<html>", "expected the IDX magic 0x000008NN (NN dimensions), found 0x3c68746d in FILE"),
        (b"\0\0\x08\0", "found 0x00000800 in FILE"),
        (b"\0\0\x0d\x01\0\0\0\0", "expected IDX of unsigned bytes (type 0x08), found type 0x0d"),
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
def test_what_is_wrong_with_an_idx_file_is_said(tmp_path, data, message):
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=re.escape(message.replace("FILE", str(path)))):
        read_idx(path)


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


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"found none at {tmp_path}/nothing"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataFormatError, match=f"found {tmp_path}: Is a directory"):
        read_idx(tmp_path)


def write_pair(tmp_path, images, labels):
    (tmp_path / "i").write_bytes(idx_bytes(images))
    (tmp_path / "l").write_bytes(idx_bytes(labels))
    return tmp_path / "i", tmp_path / "l"


def test_images_and_labels_must_belong_together(tmp_path):
    images, labels = np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8)
    paths = write_pair(tmp_path, images, labels)
    with pytest.raises(DataFormatError, match="found them swapped"):
        read_idx_pair(*reversed(paths))
    for first, second, message in (
        (images, images, r"labels \(IDX magic 0x00000801\), found 0x00000803 in .*/l"),
        (labels, labels, r"images \(IDX magic 0x00000803\), found 0x00000801 in .*/i"),
        (images[:2], labels, "found 2 images in .*/i and 3 labels in .*/l"),
        (images, labels[:2], "found 3 images in .*/i and 2 labels in .*/l"),
        (images[:0], labels[:0], r"at least one image, found shape \(0, 28, 28\) in .*/i"),
        (images[:, :0], labels, r"at least one image, found shape \(3, 0, 28\) in .*/i"),
    ):
        with pytest.raises(DataFormatError, match=message):
            read_idx_pair(*write_pair(tmp_path, first, second))


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


@pytest.mark.parametrize("header", ["pixel", "1x1"])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [True, False])
def test_csv_and_idx_of_the_same_images_agree(tmp_path, header, labelled, newline, compress):
    images, labels = pair = random_pair(2, 12)
    write_idx_folder(tmp_path, pair, pair)
    text = csv_text(images, labels if labelled else None, header=header)
    data = text.replace("\n", newline).encode()
    (tmp_path / "train.csv").write_bytes(gzip.compress(data) if compress else data)
    found, found_labels = read_kaggle_csv(tmp_path / "train.csv")
    assert kaggle_csv_is_labelled(tmp_path / "train.csv") is labelled
    expected = read_idx_folder(tmp_path)[0]
    assert_pairs_equal((found,), expected[:1])
    if labelled:
        assert_pairs_equal((found_labels,), expected[1:])
    else:
        assert found_labels is None


LINES = csv_text(*random_pair(3, 4)).splitlines()


def with_value(line, column, value):
    lines = list(LINES)
    values = lines[line - 1].split(",")
    values[column] = value
    lines[line - 1] = ",".join(values)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_value(3, 5, "256"), "0 to 255, found '256' in FILE line 3 column pixel4"),
        (with_value(5, 784, "-1"), "0 to 255, found '-1' in FILE line 5 column pixel783"),
        (with_value(2, 0, "1.5"), "0 to 255, found '1.5' in FILE line 2 column label"),
        (with_value(4, 9, ""), "0 to 255, found '' in FILE line 4 column pixel8"),
        (with_value(4, 9, "nan"), "0 to 255, found 'nan' in FILE line 4 column pixel8"),
        (with_value(4, 9, "1,2"), "expected 785 columns, found 786 in FILE line 4"),
        (with_value(1, 4, "pixel9"), "expected a header label,pixel0,...,pixel783"),
        ("\n".join(LINES[1:]) + "\n", "(785 columns) in FILE line 1"),
        ("", "(1 columns) in FILE line 1"),
        (LINES[0] + "\n", "expected at least one row below the header, found none in FILE"),
        ("\n".join(LINES), "found a row that may be cut off in FILE line 5"),
        ("\n".join(line.rpartition(",")[0] for line in LINES) + "\n", "(784 columns) in FILE line"),
        (
            "\n".join([LINES[0], *(line + ",0" for line in LINES[1:])]) + "\n",
            "expected 785 columns, found 786 in FILE line 2",
        ),
    ],
    ids=lambda value: value if len(value) < 80 else "text",
)
def test_what_is_wrong_with_a_csv_file_is_said(tmp_path, text, message):
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(DataFormatError, match=re.escape(message.replace("FILE", str(path)))):
        read_kaggle_csv(path)


@pytest.mark.parametrize("reader", [read_kaggle_csv, kaggle_csv_is_labelled])
def test_a_cut_off_compressed_csv_file_is_refused(tmp_path, reader):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode())[:60])
    with pytest.raises(DataFormatError, match=r"gzip file, found .*train\.csv\.gz"):
        reader(path)


@given(length=st.integers(0, len("\n".join(LINES))))
def test_a_cut_off_csv_file_raises_or_gives_the_first_rows(tmp_path_factory, length):
    images, labels = random_pair(3, 4)
    path = tmp_path_factory.getbasetemp() / "cut.csv"
    path.write_text(("\n".join(LINES) + "\n")[:length])
    try:
        found, found_labels = read_kaggle_csv(path)
    except DataFormatError:
        return
    assert_pairs_equal((found, found_labels), (images[: len(found)], labels[: len(found)]))


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


def test_a_path_through_a_file_is_no_data_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for read in (read_idx, read_kaggle_csv, kaggle_csv_is_labelled):
        with pytest.raises(
            DataFormatError, match=f"expected a readable data file, found {tmp_path}"
        ):
            read(tmp_path / "file" / "images")
