from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from data_files import (
    checksums,
    csv_text,
    mnist_files,
    random_pair,
    serving,
    write_idx_folder,
)

from mnistjax.data import sources, tfds_builders
from mnistjax.data.registry import DATASETS
from mnistjax.data.sources import load_dataset
from mnistjax.errors import (
    ConfigError,
    DataFormatError,
    DatasetNotFoundError,
    UnknownNameError,
)

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
    monkeypatch.setattr(sources, "DATASETS", DATASETS | SMALL)
    monkeypatch.setattr(sources, "prepare", prepare_from(CLOSED_PORT))


def prepare_from(url, sums=None):
    def prepare(info, data_dir):
        return tfds_builders.prepare(info, data_dir, url=url, checksums=sums)

    return prepare


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def assert_holds(dataset, train, test):
    for split, (images, labels) in ((dataset.train, train), (dataset.test, test)):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


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
        assert dataset.info is sources.DATASETS["mnist"]


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


def test_a_letter_labelled_zero_is_refused(data_dir):
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
    monkeypatch.setattr(sources, "DATASETS", DATASETS)
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
        monkeypatch.setattr(sources, "prepare", prepare_from(server.url, checksums(files)))
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
    monkeypatch.setattr(sources, "DATASETS", DATASETS)
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


# --- folders of one's own ------------------------------------------------------------------------


def write_csv(path, pair, *, header="pixel", labelled=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = csv_text(pair[0], pair[1] if labelled else None, header=header).encode()
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


@pytest.mark.parametrize("with_unlabelled_test", [True, False])
def test_without_a_labelled_test_file_a_stratified_fifth_is_held_out(
    tmp_path, with_unlabelled_test
):
    pair = random_pair(3, 100)
    write_csv(tmp_path / "train.csv", pair)
    if with_unlabelled_test:
        write_csv(tmp_path / "test.csv", TEST, labelled=False)
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


def test_an_unlabelled_training_file_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", TRAIN, labelled=False)
    with pytest.raises(DataFormatError, match=r"expected a column label, .*train\.csv line 1"):
        load_dataset(tmp_path)


def test_images_of_another_size_are_taken_from_ones_own_folder(tmp_path):
    train = np.zeros((4, 16, 20, 1), np.uint8), np.array([0, 1, 2, 1], np.int32)
    write_idx_folder(tmp_path, train, train)
    info = load_dataset(tmp_path).info
    assert (info.image_shape, info.num_classes) == ((16, 20, 1), 3)


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=rf"train\.csv, found neither in {tmp_path}"):
        load_dataset(tmp_path)


def test_a_registered_name_is_not_a_folder_of_that_name(tmp_path, monkeypatch, data_dir):
    write_idx_folder(tmp_path / "mnist", TRAIN, TEST)
    monkeypatch.chdir(tmp_path)
    data_dir.mkdir()
    with pytest.raises(DatasetNotFoundError):
        load_dataset("mnist", data_dir=data_dir, download=False)
    assert load_dataset("./mnist").source == "IDX files in mnist"


# --- digits --------------------------------------------------------------------------------------


def test_digits_look_like_mnist():
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.source == "scikit-learn digits, embedded"
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert images.shape[1:] == dataset.info.image_shape == (28, 28, 1)
    box = images[:, 4:24, 4:24]
    assert images.sum(dtype=np.int64) == box.sum(dtype=np.int64) > 0
    assert (images.min(), images.max()) == (0, 255)
    for split in (dataset.train, dataset.test):
        shares = np.bincount(split.labels) / len(split)
        np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_digits_are_the_drawings_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, digits = load_dataset("digits"), load_digits()
    drawn = np.concatenate([dataset.train.images, dataset.test.images])[:, 4:24, 4:24, 0]
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    for label in range(10):
        found = drawn[labels == label].mean(axis=0).reshape(4, 5, 4, 5).mean(axis=(1, 3))
        expected = digits.images[digits.target == label].mean(axis=0) * 255 / 16
        expected = expected.reshape(4, 2, 4, 2).mean(axis=(1, 3))
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_digits_are_always_the_same():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert_holds(first, *((s.images, s.labels) for s in (second.train, second.test)))


# --- imports and the real data -------------------------------------------------------------------


def run_python(script):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


HEAVY = '("tensorflow", "tensorflow_datasets", "sklearn", "PIL")'


def test_importing_the_wing_imports_nothing_heavy():
    run_python(f"""
        import sys
        import mnistjax.data
        assert not [name for name in {HEAVY} if name in sys.modules]
    """)


def test_loading_idx_files_imports_nothing_heavy(tmp_path):
    write_idx_folder(tmp_path, TRAIN, TEST)
    run_python(f"""
        import sys
        import mnistjax.data
        for _ in range(2):
            mnistjax.data.load_dataset({str(tmp_path)!r})
        assert not [name for name in {HEAVY} if name in sys.modules]
    """)


@pytest.mark.mnist
def test_real_mnist_is_loaded_cold_and_warm(data_dir, mnist_dir, monkeypatch):
    monkeypatch.setattr(sources, "DATASETS", DATASETS)
    (data_dir / "mnist").mkdir(parents=True)
    for path in (mnist_dir / "mnist").glob("*.gz"):
        (data_dir / "mnist" / path.name).symlink_to(path)
    cold, warm = (load_dataset("mnist", data_dir=data_dir, download=False) for _ in range(2))
    assert_holds(warm, *((s.images, s.labels) for s in (cold.train, cold.test)))
    assert (len(warm.train), len(warm.test)) == (60_000, 10_000)
    assert np.bincount(warm.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
