from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    assert_holds,
    checksums,
    mnist_files,
    random_pair,
    serving,
    write_idx_folder,
)

from mnistjax.data import load, tfds_download
from mnistjax.data.load import load_dataset
from mnistjax.data.registry import DATASETS
from mnistjax.errors import DataFormatError, DatasetNotFoundError, UnknownNameError

TRAIN, TEST = random_pair(0, 40), random_pair(1, 20)
LETTERS = tuple((images, labels % 26 + 1) for images, labels in (TRAIN, TEST))
SMALL = {
    name: dataclasses.replace(
        info, train_size=40, test_size=20, prepared_sizes=(40, 20) if info.prepared_sizes else None
    )
    for name, info in DATASETS.items()
    if name != "digits"
}
CLOSED_PORT = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No variable, cache or network of this machine plays a part; data sets are small."""
    for name in ("MNISTJAX_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setattr(load, "DATASETS", DATASETS | SMALL)
    monkeypatch.setattr(load, "prepare", prepare_from(CLOSED_PORT))


def prepare_from(url, sums=None):
    return partial(tfds_download.prepare, url=url, checksums=sums)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def assert_holds_shuffled(dataset, train, test):
    for split, (images, labels) in ((dataset.train, train), (dataset.test, test)):
        found = sorted(
            (i.tobytes(), int(n)) for i, n in zip(split.images, split.labels, strict=True)
        )
        assert found == sorted((i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_loaded_and_then_mapped(data_dir, suffix):
    write_idx_folder(data_dir / "mnist", TRAIN, TEST, suffix=suffix)
    for mapped in (False, True):
        dataset = load_dataset("mnist", data_dir=data_dir, download=False)
        assert_holds(dataset, TRAIN, TEST)
        assert isinstance(dataset.train.images, np.memmap) is mapped
        assert dataset.source == f"IDX files in {data_dir}/mnist"
        assert dataset.info is load.DATASETS["mnist"]


def test_a_changed_file_is_read_again(data_dir):
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    load_dataset("mnist", data_dir=data_dir)
    other = random_pair(5, 40)
    write_idx_folder(data_dir / "mnist", other, TEST)
    assert_holds(load_dataset("mnist", data_dir=data_dir), other, TEST)


@pytest.mark.parametrize("folder", ["emnist", "emnist/gzip"])
def test_emnist_comes_upright_and_counted_from_zero(data_dir, folder):
    train, test = ((images.swapaxes(1, 2), labels) for images, labels in LETTERS)
    write_idx_folder(data_dir / folder, train, test, prefix="emnist-letters-")
    for _ in range(2):
        dataset = load_dataset("emnist/letters", data_dir=data_dir)
        assert_holds(dataset, *((images, labels - 1) for images, labels in LETTERS))
    assert dataset.source == f"IDX files in {data_dir / folder}"


def test_a_letter_labeled_zero_is_refused(data_dir):
    write_idx_folder(data_dir / "emnist", TRAIN, TEST, prefix="emnist-letters-")
    for _ in range(2):
        with pytest.raises(DataFormatError, match="labels must be >= 0, found -1 at index 0"):
            load_dataset("emnist/letters", data_dir=data_dir)


def test_swapped_train_and_test_files_are_found_by_their_sizes(data_dir):
    write_idx_folder(data_dir / "mnist", TEST, TRAIN)
    with pytest.raises(
        DataFormatError, match=r"expected 40 train images of 'mnist', found 20 in .*train-im"
    ):
        load_dataset("mnist", data_dir=data_dir)


def test_the_registered_sizes_are_those_of_the_published_files(data_dir, monkeypatch):
    monkeypatch.setattr(load, "DATASETS", DATASETS)
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    with pytest.raises(DataFormatError, match="expected 60000 train images of 'mnist', found 40"):
        load_dataset("mnist", data_dir=data_dir)


@pytest.mark.parametrize("name", ["mnist", None])
def test_damaged_and_missing_files_are_errors_and_no_reason_to_fall_back(data_dir, name):
    paths = write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    path = paths["train-labels-idx1-ubyte"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataFormatError, match=rf"cut off, {path}"):
        load_dataset(name, data_dir=data_dir)
    path.unlink()
    with pytest.raises(DataFormatError, match=r"found no train-labels-idx1-ubyte\.gz"):
        load_dataset(name, data_dir=data_dir)


def test_the_environment_names_the_folder_and_the_argument_wins(data_dir, tmp_path, monkeypatch):
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    write_idx_folder(tmp_path / "home" / "tensorflow_datasets" / "mnist", TEST, TEST)
    write_idx_folder(tmp_path / "tfds" / "mnist", TEST, TEST)
    wrong = "expected 40 train images of 'mnist', found 20 in "
    with pytest.raises(DataFormatError, match=wrong + f"{tmp_path}/home"):
        load_dataset("mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(DataFormatError, match=wrong + f"{tmp_path}/tfds"):
        load_dataset("mnist")
    monkeypatch.setenv("MNISTJAX_DATA_DIR", str(data_dir))
    assert load_dataset("mnist").source == f"IDX files in {data_dir}/mnist"
    with pytest.raises(DataFormatError, match=wrong):
        load_dataset("mnist", data_dir=tmp_path / "tfds")


# --- prepared by TensorFlow Datasets -------------------------------------------------------------


@pytest.fixture
def served(monkeypatch):
    files = mnist_files(TRAIN, TEST)
    with serving(files) as server:
        monkeypatch.setattr(load, "prepare", prepare_from(server.url, checksums(files)))
        yield server


def test_what_is_missing_is_downloaded_once(data_dir, served):
    first = load_dataset("mnist", data_dir=data_dir)
    assert first.source == f"downloaded by TFDS (mnist/3.0.1) into {data_dir}"
    assert_holds_shuffled(first, TRAIN, TEST)
    fetched = len(served.fetched)
    second = load_dataset("mnist", data_dir=data_dir)
    assert second.source == f"TFDS mnist/3.0.1 in {data_dir}"
    assert isinstance(second.train.images, np.memmap)
    assert len(served.fetched) == fetched
    assert_holds(second, *((s.images, s.labels) for s in (first.train, first.test)))


def test_another_process_may_be_quicker(data_dir, tmp_path, served):
    """It has prepared the data set while ours was still downloading."""
    load_dataset("mnist", data_dir=tmp_path / "other")
    version = "mnist/3.0.1"

    def publish(name):
        if name == "t10k-labels-idx1-ubyte.gz":
            shutil.copytree(tmp_path / "other" / version, data_dir / version)

    served.before_file = publish
    assert_holds_shuffled(load_dataset("mnist", data_dir=data_dir), TRAIN, TEST)
    assert not list(data_dir.rglob("incomplete*"))


def test_idx_files_come_before_what_tfds_prepared(data_dir, served):
    load_dataset("mnist", data_dir=data_dir)
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    dataset = load_dataset("mnist", data_dir=data_dir)
    assert dataset.source == f"IDX files in {data_dir}/mnist"
    assert_holds(dataset, TRAIN, TEST)


def test_a_read_only_folder_is_not_written_to(data_dir, tmp_path, served):
    data_dir.mkdir(mode=0o555)
    for source in ("downloaded by TFDS (mnist/3.0.1) into {}", "TFDS mnist/3.0.1 in {}"):
        dataset = load_dataset("mnist", data_dir=data_dir)
        place = tmp_path / "user-cache" / "mnistjax" / "tensorflow_datasets"
        assert dataset.source == source.format(place)
    assert list(data_dir.iterdir()) == []


def test_a_prepared_set_of_another_size_is_refused(data_dir, served, monkeypatch):
    load_dataset("mnist", data_dir=data_dir)
    monkeypatch.setattr(load, "DATASETS", DATASETS)
    (data_dir / ".mnistjax").rename(data_dir / "elsewhere")
    with pytest.raises(DataFormatError, match=r"expected 60000 train images .*mnist/3\.0\.1"):
        load_dataset("mnist", data_dir=data_dir)


def test_records_that_only_tensorflow_can_read_are_named(data_dir):
    folder = data_dir / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord"}))
    with pytest.raises(
        DatasetNotFoundError, match=rf"{folder} was prepared as tfrecord, which only TensorFlow"
    ):
        load_dataset("mnist", data_dir=data_dir)


# --- what cannot be had --------------------------------------------------------------------------


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "emnist/digits"])
def test_what_cannot_be_had_names_the_three_ways_in_one_line(data_dir, name, download):
    data_dir.mkdir()
    with pytest.raises(DatasetNotFoundError) as caught:
        load_dataset(name, data_dir=data_dir, download=download)
    message = str(caught.value)
    assert message.startswith(f"data set {name!r} not found in {data_dir}: ")
    reason = "no answer from http://127.0.0.1:9/" if download else "downloading is off"
    folder = data_dir / name.partition("/")[0]
    for part in (reason, "network", f"-ubyte.gz into {folder}", "MNISTJAX_DATA_DIR", "TFDS"):
        assert part in message
    assert "\n" not in message
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("download", [True, False])
def test_without_a_name_digits_take_the_place_of_mnist_and_say_so(data_dir, download):
    data_dir.mkdir()
    dataset = load_dataset(data_dir=data_dir, download=download)
    assert dataset.info.name == "digits"
    assert dataset.source == (
        f"scikit-learn digits, embedded: mnist was not found in {data_dir} and not downloaded; "
        "ask for mnist by name to see why"
    )


def test_without_a_name_mnist_is_loaded_where_it_is(data_dir):
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    assert load_dataset(data_dir=data_dir).info.name == "mnist"


@pytest.mark.parametrize("name", ["mnist", None])
@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("by_variable", [True, False])
def test_a_folder_that_was_named_and_is_none_is_an_error(
    tmp_path, monkeypatch, name, by_variable, download
):
    """Also without a name: a mistyped folder must not end in other data."""
    typo = tmp_path / "typo"
    if by_variable:
        monkeypatch.setenv("MNISTJAX_DATA_DIR", str(typo))
    with pytest.raises(DatasetNotFoundError, match=rf"{typo}"):
        load_dataset(name, data_dir=None if by_variable else typo, download=download)
    assert not typo.exists()


def test_a_file_is_no_data_set(tmp_path):
    (tmp_path / "train.csv").write_text("label")
    with pytest.raises(DatasetNotFoundError, match=r"or a folder with .*, found file .*train.csv"):
        load_dataset(tmp_path / "train.csv")


@pytest.mark.parametrize("name", ["mnist", None])
def test_a_file_is_no_data_directory(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetNotFoundError, match=rf"a folder, found file {tmp_path}/file"):
        load_dataset(name, data_dir=tmp_path / "file")


@pytest.mark.parametrize("name", ["mnits", "no/such/folder"])
def test_an_unknown_name_is_refused(data_dir, name):
    with pytest.raises(UnknownNameError, match=f"unknown dataset '{name}': .*known are digits"):
        load_dataset(name, data_dir=data_dir)


def test_registered_names_come_before_folders(tmp_path, monkeypatch, data_dir):
    write_idx_folder(tmp_path / "mnist", TEST, TRAIN)
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    write_idx_folder(data_dir / "mnist", TRAIN, TEST)
    assert load_dataset("mnist", data_dir=data_dir).source == f"IDX files in {data_dir}/mnist"
    assert load_dataset("digits").info.name == "digits"
    for folder in ("./mnist", "../" + tmp_path.name + "/mnist", Path("mnist"), Path("./mnist")):
        dataset = load_dataset(folder, data_dir=data_dir)
        assert dataset.source == f"IDX files in {Path(folder)}"
        assert_holds(dataset, TEST, TRAIN)


def test_a_path_to_nothing_is_no_data_set(tmp_path, data_dir):
    with pytest.raises(DatasetNotFoundError, match=rf"or a folder with .*nothing at {tmp_path}/x"):
        load_dataset(tmp_path / "x", data_dir=data_dir)


# --- imports and the real data -------------------------------------------------------------------


def run_python(script):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


HEAVY = '("tensorflow", "tensorflow_datasets", "sklearn", "PIL")'


def test_importing_and_loading_idx_files_import_nothing_heavy(tmp_path):
    write_idx_folder(tmp_path, TRAIN, TEST)
    run_python(f"""
        import sys
        import mnistjax.data
        assert not [name for name in {HEAVY} if name in sys.modules]
        for _ in range(2):
            mnistjax.data.load_dataset({str(tmp_path)!r})
        assert not [name for name in {HEAVY} if name in sys.modules]
    """)


@pytest.mark.mnist
def test_real_mnist_is_loaded_cold_and_warm(data_dir, mnist_dir, monkeypatch):
    monkeypatch.setattr(load, "DATASETS", DATASETS)
    (data_dir / "mnist").mkdir(parents=True)
    for path in (mnist_dir / "mnist").glob("*.gz"):
        (data_dir / "mnist" / path.name).symlink_to(path)
    cold, warm = (load_dataset("mnist", data_dir=data_dir, download=False) for _ in range(2))
    assert_holds(warm, *((s.images, s.labels) for s in (cold.train, cold.test)))
    assert (len(warm.train), len(warm.test)) == (60_000, 10_000)
    assert np.bincount(warm.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
