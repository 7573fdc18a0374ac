from __future__ import annotations

import gzip

import numpy as np
import pytest
from data_files import assert_holds, csv_text, random_pair, write_idx_folder

from mnistjax.data.load import load_dataset
from mnistjax.errors import ConfigError, DataFormatError, DatasetNotFoundError

TRAIN, TEST = random_pair(0, 40), random_pair(1, 20)


def write_csv(path, pair, *, header="pixel", labeled=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = csv_text(pair[0], pair[1] if labeled else None, header=header).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_idx_and_csv_folders_of_the_same_images_agree(tmp_path):
    write_idx_folder(tmp_path / "idx", TRAIN, TEST)
    for folder, names, header in (
        ("kaggle", ("train.csv", "test.csv"), "pixel"),
        ("widespread", ("mnist_train.csv", "mnist_test.csv.gz"), "1x1"),
    ):
        write_csv(tmp_path / folder / names[0], TRAIN, header=header)
        write_csv(tmp_path / folder / names[1], TEST, header=header)
        dataset = load_dataset(tmp_path / folder)
        assert dataset.source == f"CSV files in {tmp_path / folder} ({', '.join(names)})"
        assert_holds(dataset, TRAIN, TEST)
    for mapped in (False, True):
        dataset = load_dataset(str(tmp_path / "idx"))
        assert isinstance(dataset.train.images, np.memmap) is mapped
        assert_holds(dataset, TRAIN, TEST)
    assert dataset.source == f"IDX files in {tmp_path / 'idx'}"
    assert (dataset.info.name, dataset.info.num_classes) == ("idx", 10)


@pytest.mark.parametrize("with_unlabeled_test", [True, False])
def test_without_a_labeled_test_file_a_stratified_fifth_is_held_out(tmp_path, with_unlabeled_test):
    pair = random_pair(3, 100)
    write_csv(tmp_path / "train.csv", pair)
    if with_unlabeled_test:
        write_csv(tmp_path / "test.csv", TEST, labeled=False)
    for _ in range(2):
        dataset = load_dataset(tmp_path)
        assert "a fixed fifth of it" in dataset.source
        assert np.bincount(dataset.train.labels).tolist() == [8] * 10
        assert np.bincount(dataset.test.labels).tolist() == [2] * 10
        rows = np.concatenate([dataset.train.images, dataset.test.images])
        assert sorted(map(bytes, rows)) == sorted(map(bytes, pair[0]))


def test_a_csv_file_too_small_to_hold_anything_out_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", random_pair(3, 10))
    with pytest.raises(ConfigError, match="leaves a side without an image of every class"):
        load_dataset(tmp_path)


def test_an_unlabeled_training_file_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", TRAIN, labeled=False)
    with pytest.raises(DataFormatError, match=r"expected a column label, .*train\.csv line 1"):
        load_dataset(tmp_path)


def test_images_of_another_size_are_taken_from_ones_own_folder(tmp_path):
    train = np.zeros((4, 16, 20, 1), np.uint8), np.array([0, 1, 2, 1], np.int32)
    write_idx_folder(tmp_path, train, train)
    info = load_dataset(tmp_path).info
    assert (info.image_shape, info.num_classes) == ((16, 20, 1), 3)


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"found none of them in {tmp_path}"):
        load_dataset(tmp_path)
