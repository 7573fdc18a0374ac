from __future__ import annotations

import functools
import gzip
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    assert_same_examples,
    checksums,
    idx_bytes,
    mnist_files,
    random_pair,
    serving,
    zip_bytes,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistjax.data import tfds_download
from mnistjax.data.idx import decode_idx_pair, read_idx_folder
from mnistjax.data.registry import DATASETS
from mnistjax.data.tfds_prepared import Prepared, find_prepared, read_prepared
from mnistjax.errors import DataFormatError, DatasetNotFoundError

TRAIN, TEST = random_pair(0, 30), random_pair(1, 20)
FILES = mnist_files(TRAIN, TEST)
SUMS = checksums(FILES)
CLOSED_PORT = "http://127.0.0.1:9/"


def prepare(builder, folder, **options):
    tfds_download.prepare(builder, folder, decode_pair=decode_idx_pair, **options)
    return find_prepared(builder, folder)


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    with serving(FILES) as server:
        return prepare("mnist", tmp_path_factory.mktemp("prepared"), url=server.url, checksums=SUMS)


def test_what_was_prepared_is_what_the_files_hold(prepared):
    train, test = read_prepared(prepared)
    assert_same_examples(train, TRAIN)
    assert_same_examples(test, TEST)


def test_what_was_prepared_is_the_standard_of_tfds(prepared):
    assert (prepared.label, prepared.file_format) == ("mnist/3.0.1", "array_record")
    assert find_prepared("mnist", prepared.path.parent.parent) == prepared
    names = {path.name for path in prepared.files()}
    assert {"dataset_info.json", "features.json"} < names
    description = json.loads((prepared.path / "dataset_info.json").read_text())
    assert (description["name"], description["version"]) == ("mnist", "3.0.1")


def test_the_builder_of_tfds_reads_it(prepared):
    from tensorflow_datasets.image_classification import mnist

    builder = mnist.MNIST(data_dir=str(prepared.path.parent.parent))
    records = builder.as_data_source("test")
    images = np.stack([records[index]["image"] for index in range(len(records))])
    labels = np.array([records[index]["label"] for index in range(len(records))], np.int32)
    assert_same_examples((images, labels), TEST)


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_the_other_sets_of_the_family_are_prepared_as_their_files_hold_them(tmp_path, name):
    with serving(FILES) as server:
        prepared = prepare(name, tmp_path, url=server.url, checksums=SUMS)
    assert prepared.label == f"{name}/3.0.1"
    train, test = read_prepared(prepared)
    assert_same_examples(train, TRAIN)
    assert_same_examples(test, TEST)
    names = (prepared.path / "label.labels.txt").read_text().splitlines()
    assert names == list(DATASETS[name].class_names)


def test_a_second_time_nothing_is_fetched(tmp_path):
    with serving(FILES) as server:
        first = prepare("mnist", tmp_path, url=server.url, checksums=SUMS)
        assert sorted(server.fetched) == sorted(FILES)
        assert prepare("mnist", tmp_path, url=server.url, checksums=SUMS) == first
        assert len(server.fetched) == len(FILES)
    assert not list(tmp_path.rglob("*tmp*"))
    assert not list(tmp_path.rglob("incomplete*"))


@pytest.mark.parametrize("name", FILES)
def test_wrong_content_is_refused_and_leaves_nothing(tmp_path, name):
    wrong = FILES[name][:-1] + bytes([FILES[name][-1] ^ 1])
    with (
        serving(FILES | {name: wrong}) as server,
        pytest.raises(DataFormatError, match=f"{name}, has wrong checksum.*Expect.*Got") as caught,
    ):
        prepare("mnist", tmp_path / "new", url=server.url, checksums=SUMS)
    assert "\n" not in str(caught.value)
    assert_only_verified_downloads(tmp_path)


def assert_only_verified_downloads(tmp_path):
    """What stays after a failure are whole files that were checked, kept for the next attempt."""
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".INFO":
            assert path.read_bytes() in FILES.values()
    assert not list(tmp_path.rglob("*tmp*"))
    assert not list(tmp_path.rglob("incomplete*"))
    assert not (tmp_path / "new" / "mnist").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_broken_connection_is_said_and_leaves_nothing(tmp_path, name):
    with serving(FILES) as server:
        server.cut.add(name)
        with pytest.raises(
            DatasetNotFoundError, match=r"mnist could not be prepared: .*"
        ) as caught:
            prepare("mnist", tmp_path / "new", url=server.url, checksums=SUMS)
        assert "\n" not in str(caught.value)
        assert_only_verified_downloads(tmp_path)
        server.cut.clear()
        server.fetched.clear()
        train, _ = read_prepared(prepare("mnist", tmp_path / "new", url=server.url, checksums=SUMS))
        # The files that had arrived are not fetched again.
        assert server.fetched == list(FILES)[list(FILES).index(name) :]
    assert_same_examples(train, TRAIN)


@pytest.mark.parametrize(
    ("status", "message"), [(404, "HTTP code: 404"), (403, "403"), (503, "HTTP status 503 from")]
)
def test_a_refusal_by_the_server_is_said(tmp_path, status, message):
    with serving(FILES) as server:
        server.statuses["train-images-idx3-ubyte.gz"] = status
        with pytest.raises(DatasetNotFoundError, match=message):
            prepare("mnist", tmp_path / "new", url=server.url, checksums=SUMS)
    assert everything_below(tmp_path) == []


def test_no_network_is_said_at_once_and_leaves_nothing(tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"no answer from http://127\.0\.0\.1:9/.*refuse"
    ):
        prepare("mnist", tmp_path / "new", url=CLOSED_PORT)
    assert everything_below(tmp_path) == []


def test_the_registered_checksums_hold_for_every_address(tmp_path):
    """Files of a mirror are held against the checksums that TFDS has for the original."""
    with serving(FILES) as server, pytest.raises(DataFormatError, match="440fcabf73cc546f"):
        prepare("mnist", tmp_path, url=server.url)


def test_a_file_without_a_checksum_is_not_fetched(tmp_path):
    with serving({"other.zip": b"x"}) as server:
        with pytest.raises(ValueError, match="Missing checksums"):
            prepare("emnist/digits", tmp_path, url=server.url + "other.zip")
        assert server.fetched == []


def emnist_zip(name, train, test):
    files = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        stem = f"gzip/emnist-{name}-{split}"
        files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(images[..., 0]))
        files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(labels))
    return files


def prepare_emnist(name, files, folder):
    archives = {"gzip.zip": zip_bytes(files)}
    with serving(archives) as server:
        return prepare(
            f"emnist/{name}",
            folder,
            url=server.url + "gzip.zip",
            checksums=checksums(archives),
        )


def test_emnist_is_prepared_as_its_files_hold_it(tmp_path, monkeypatch):
    from tensorflow_datasets.image_classification.mnist import EMNIST

    config = next(config for config in EMNIST.BUILDER_CONFIGS if config.name == "letters")
    monkeypatch.setattr(config, "train_examples", 25)
    train = (TRAIN[0], TRAIN[1] % 26 + 1)
    prepared = prepare_emnist("letters", emnist_zip("letters", train, TEST), tmp_path)
    assert prepared.label == "emnist/letters/3.1.0"
    found_train, found_test = read_prepared(prepared)
    assert_same_examples(found_train, (train[0][:25], train[1][:25]))
    assert_same_examples(found_test, TEST)


def test_a_zip_file_lacking_a_file_says_which(tmp_path):
    with pytest.raises(DataFormatError, match=r"gzip/emnist-digits-train-images-idx3-ubyte\.gz"):
        prepare_emnist("digits", emnist_zip("letters", TRAIN, TEST), tmp_path)
    assert not list(tmp_path.rglob("incomplete*"))


def describe(folder, version, **entries):
    path = folder / "mnist" / version / "dataset_info.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entries))


def test_the_newest_readable_version_is_found(tmp_path):
    assert find_prepared("mnist", tmp_path) is None
    describe(tmp_path, "4.0.0", fileFormat="tfrecord")
    assert not find_prepared("mnist", tmp_path).is_readable
    for version in ("3.0.1", "3.0.10", "3.0.2"):
        describe(tmp_path, version, fileFormat="array_record")
    assert find_prepared("mnist", tmp_path).label == "mnist/3.0.10"


def test_the_format_that_old_descriptions_leave_out_is_tfrecord(tmp_path):
    describe(tmp_path, "3.0.1")
    assert find_prepared("mnist", tmp_path).file_format == "tfrecord"
    assert not find_prepared("mnist", tmp_path).is_readable


@pytest.mark.parametrize("text", ["", "[]", '{"fileFormat": '])
def test_a_damaged_description_is_said(tmp_path, text):
    describe(tmp_path, "3.0.1")
    path = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    path.write_text(text)
    with pytest.raises(DataFormatError, match=f"description of a prepared data set.* {path}"):
        find_prepared("mnist", tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    split=st.sampled_from(["train", "test"]),
    place=st.floats(0, 1, exclude_max=True),
    damage=st.sampled_from(["flip", "cut"]),
)
def test_damaged_records_raise_or_are_right(prepared, tmp_path_factory, split, place, damage):
    folder = tmp_path_factory.mktemp("damaged") / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for path in prepared.files():
        data = bytearray(path.read_bytes())
        if f"-{split}." in path.name:
            position = int(place * len(data))
            if damage == "flip":
                data[position] ^= 0x10
            else:
                del data[position:]
        (folder / path.name).write_bytes(data)
    damaged = Prepared(folder, "mnist/3.0.1", "array_record")
    try:
        found = read_prepared(damaged)
    except DataFormatError as error:
        message = str(error)
    else:  # The damage is harmless.
        assert_same_examples(found[0], TRAIN)
        assert_same_examples(found[1], TEST)
        return
    assert str(folder) in message


def test_preparing_and_reading_need_no_tensorflow(tmp_path):
    with serving(FILES) as server:
        script = f"""
            import sys
            from pathlib import Path
            from mnistjax.data.idx import decode_idx_pair
            from mnistjax.data.tfds_download import prepare
            from mnistjax.data.tfds_prepared import find_prepared, read_prepared
            folder = Path({str(tmp_path)!r})
            prepare(
                "mnist",
                folder,
                decode_pair=decode_idx_pair,
                url={server.url!r},
                checksums={SUMS!r},
            )
            (images, _), _ = read_prepared(find_prepared("mnist", folder))
            assert len(images) == {len(TRAIN[0])}
            assert "tensorflow" not in sys.modules
            assert "tensorflow_datasets" in sys.modules
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.mnist
@pytest.mark.parametrize("count", [1_000, pytest.param(None, marks=pytest.mark.full)])
def test_the_real_files_are_prepared_against_the_registered_checksums(
    count, tmp_path, mnist_dir, monkeypatch
):
    """All bytes of the files are checked, and the first images of each split are encoded."""
    from tensorflow_datasets import download

    limited = functools.partial(download.DownloadConfig, max_examples_per_split=count)
    monkeypatch.setattr(download, "DownloadConfig", limited)
    files = {path.name: path.read_bytes() for path in (mnist_dir / "mnist").glob("*.gz")}
    with serving(files) as server:
        wrong = "t10k-labels-idx1-ubyte.gz"
        server.files[wrong] = files[wrong][:-1] + b"?"
        with pytest.raises(DataFormatError, match=r"wrong checksum.*f7ae60f92e00ec6d"):
            prepare("mnist", tmp_path, url=server.url)
        server.files[wrong] = files[wrong]
        train, test = read_prepared(prepare("mnist", tmp_path, url=server.url))
    expected_train, expected_test = read_idx_folder(mnist_dir / "mnist")
    for found, expected in ((train, expected_train), (test, expected_test)):
        assert sorted(example_bytes(found)) == sorted(example_bytes(expected)[:count])


def example_bytes(pair):
    """Real digits differ in the middle only, so whole images are compared."""
    images, labels = pair
    return [bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
