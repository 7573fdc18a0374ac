"""A folder whose content is not what its name promises is named in a warning."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import random_pair, write_idx_folder

from mnistjax.data import load, read_idx_folder
from mnistjax.data.registry import DATASETS
from mnistjax.data.splits import DatasetInfo

TRAIN, TEST = random_pair(0, 40), random_pair(1, 20)
WARNING = "do not hold the published images and labels of mnist"


def write(folder, change=lambda images: images):
    write_idx_folder(folder / "mnist", (change(TRAIN[0]), TRAIN[1]), TEST, suffix="")


@pytest.fixture
def small(monkeypatch):
    """Lets the small set be the published one."""
    info = DatasetInfo("mnist", 10, train_size=40, test_size=20, builder="mnist")
    digest = load._sha256(TRAIN, TEST).tobytes().hex()
    monkeypatch.setattr(load, "DATASETS", DATASETS | {"mnist": info})
    monkeypatch.setattr(load, "PUBLISHED_SHA256", {"mnist": digest})


@pytest.mark.parametrize("source", ["decoded", "cached"])
def test_other_images_of_the_same_size_are_noticed(tmp_path, small, caplog, source):
    write(tmp_path, lambda images: 255 - images)
    for _ in range(2 if source == "cached" else 1):
        caplog.clear()
        load.load_dataset("mnist", data_dir=tmp_path)
    assert WARNING in caplog.text


def test_one_changed_pixel_and_swapped_labels_are_noticed(tmp_path, small, caplog):
    changed = TRAIN[0].copy()
    changed[7, 3, 5] ^= 1
    write(tmp_path / "pixel", lambda images: changed)
    load.load_dataset("mnist", data_dir=tmp_path / "pixel")
    assert WARNING in caplog.text
    caplog.clear()
    labels = TRAIN[1].copy()
    labels[[0, 1]] = labels[[1, 0]]
    write_idx_folder(tmp_path / "labels" / "mnist", (TRAIN[0], labels), TEST)
    load.load_dataset("mnist", data_dir=tmp_path / "labels")
    assert WARNING in caplog.text


def test_the_published_images_are_accepted_in_any_order(tmp_path, small, caplog):
    order = np.random.default_rng(0).permutation(40)
    write_idx_folder(tmp_path / "mnist", (TRAIN[0][order], TRAIN[1][order]), TEST)
    for _ in range(2):
        load.load_dataset("mnist", data_dir=tmp_path)
    assert not caplog.text


@pytest.mark.mnist
def test_the_real_files_are_the_published_ones_and_their_negatives_are_not(
    tmp_path, mnist_dir, caplog
):
    load.load_dataset("mnist", data_dir=mnist_dir)
    assert not caplog.text
    train, test = read_idx_folder(mnist_dir / "mnist")
    write_idx_folder(tmp_path / "mnist", (255 - train[0], train[1]), test, suffix="")
    load.load_dataset("mnist", data_dir=tmp_path)
    assert WARNING in caplog.text
