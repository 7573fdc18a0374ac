from __future__ import annotations

import gzip
import re

import pytest
from data_files import assert_pairs_equal, csv_text, random_pair, write_idx_folder
from hypothesis import given
from hypothesis import strategies as st

from mnistjax.data.idx import read_idx_folder
from mnistjax.data.kaggle_csv import kaggle_csv_is_labeled, read_kaggle_csv
from mnistjax.errors import DataFormatError, DatasetNotFoundError


@pytest.mark.parametrize("header", ["pixel", "1x1"])
@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [True, False])
def test_csv_and_idx_of_the_same_images_agree(tmp_path, header, labeled, newline, compress):
    images, labels = pair = random_pair(2, 12)
    write_idx_folder(tmp_path, pair, pair)
    text = csv_text(images, labels if labeled else None, header=header)
    data = text.replace("\n", newline).encode()
    (tmp_path / "train.csv").write_bytes(gzip.compress(data) if compress else data)
    found, found_labels = read_kaggle_csv(tmp_path / "train.csv")
    assert kaggle_csv_is_labeled(tmp_path / "train.csv") is labeled
    expected = read_idx_folder(tmp_path)[0]
    assert_pairs_equal((found,), expected[:1])
    if labeled:
        assert_pairs_equal((found_labels,), expected[1:])
    else:
        assert found_labels is None


def test_a_byte_order_mark_and_quoted_names_are_accepted(tmp_path):
    """As R and spreadsheets write them."""
    images, labels = random_pair(4, 3)
    header, _, body = csv_text(images, labels).partition("\n")
    quoted = ",".join(f'"{name}"' for name in header.split(","))
    (tmp_path / "train.csv").write_bytes(f"\ufeff{quoted}\n{body}".encode())
    found = read_kaggle_csv(tmp_path / "train.csv")
    assert kaggle_csv_is_labeled(tmp_path / "train.csv")
    assert_pairs_equal(found, (images, labels))


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


@pytest.mark.parametrize("reader", [read_kaggle_csv, kaggle_csv_is_labeled])
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


def test_a_path_to_no_file_is_said(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"found none at {tmp_path}/nothing"):
        read_kaggle_csv(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"")
    for read in (read_kaggle_csv, kaggle_csv_is_labeled):
        with pytest.raises(
            DataFormatError, match=f"expected a readable data file, found {tmp_path}"
        ):
            read(tmp_path / "file" / "images")
