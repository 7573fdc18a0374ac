"""Kaggle's submission: a label for every row, or an error that says what is wrong with the CSV."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from data_files import csv_text, random_pair

import mnistjax


@pytest.fixture(scope="module")
def trained(digits_network):
    return digits_network


@pytest.mark.parametrize("count", [1, 130])
def test_every_row_gets_its_label_in_order(trained, tmp_path, count):
    images, _ = random_pair(0, count)
    (tmp_path / "test.csv").write_text(csv_text(images))
    labels = mnistjax.reading.write_submission(
        trained, tmp_path / "test.csv", tmp_path / "out" / "s.csv"
    )
    np.testing.assert_array_equal(labels, mnistjax.predict(trained, images).labels)
    header, *rows = (tmp_path / "out" / "s.csv").read_text().splitlines()
    assert header == "ImageId,Label"
    assert rows == [f"{number},{label}" for number, label in enumerate(labels, start=1)]


TEXT = csv_text(random_pair(0, 3)[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (csv_text(*random_pair(0, 3)), "without labels, found label,pixel0,..."),
        (TEXT.replace("pixel783", "pixel784"), "line 1"),
        (TEXT.replace("pixel0,", ""), "(783 columns)"),
        (TEXT.rsplit(",", 1)[0] + "\n", "expected 784 columns, found 783"),
        (TEXT.rsplit(",", 1)[0] + ",256\n", "line 4 column pixel783"),
        (TEXT.split("\n")[0] + "\n", "expected at least one row"),
        ("", "expected a header"),
    ],
)
def test_another_table_is_refused_and_nothing_is_written(trained, tmp_path, text, words):
    path = tmp_path / "test.csv"
    path.write_text(text)
    with pytest.raises(mnistjax.errors.DataFormatError) as caught:
        mnistjax.reading.write_submission(trained, path, tmp_path / "submission.csv")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["test.csv"]


def test_a_network_of_another_image_shape_is_refused(trained, tmp_path):
    (tmp_path / "test.csv").write_text(TEXT)
    info = mnistjax.DatasetInfo("color", 10, image_shape=(32, 32, 3))
    with pytest.raises(mnistjax.errors.ConfigError, match="expected a network for images of shape"):
        mnistjax.reading.write_submission(
            dataclasses.replace(trained, info=info), tmp_path / "test.csv", tmp_path / "s.csv"
        )
