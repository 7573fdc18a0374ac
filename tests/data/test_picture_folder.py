"""Pictures in a folder for each class are read as they are, and anything else is one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import mnistjax
from mnistjax.data.load import load_dataset
from mnistjax.errors import DataFormatError, DatasetNotFoundError


def draw(count, channels=1, seed=0, size=(6, 5)):
    shape = (count, *size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, images, *, end=".png"):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{number:03d}{end}")


@pytest.fixture(params=[1, 3], ids=["gray", "color"])
def channels(request):
    return request.param


def test_pictures_are_read_bit_for_bit_in_the_order_of_names(tmp_path, channels):
    images = {name: draw(7, channels, seed) for seed, name in enumerate(("b", "a"))}
    for name, drawn in images.items():
        write(tmp_path / "train" / name, drawn)
        write(tmp_path / "test" / name, drawn[:2])
    (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".hidden").mkdir()
    for mapped in (False, True):  # Read, and from the cache.
        dataset = load_dataset(tmp_path)
        assert isinstance(dataset.train.images, np.memmap) is mapped
        expected = np.concatenate([images["a"], images["b"]])
        np.testing.assert_array_equal(dataset.train.images, expected)
        assert dataset.train.labels.tolist() == [0] * 7 + [1] * 7
        np.testing.assert_array_equal(dataset.test.images[:2], images["a"][:2])
        assert dataset.info.class_names == ("a", "b")
        assert dataset.info.image_shape == (6, 5, channels)
        assert dataset.source == f"pictures in {tmp_path}"


def test_without_a_test_folder_a_fifth_of_every_class_is_held_out(tmp_path):
    for seed, name in enumerate("xyz"):
        write(tmp_path / name, draw(10, seed=seed))
    dataset = load_dataset(tmp_path)
    assert np.bincount(dataset.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2]
    assert "a fixed fifth of each class" in dataset.source


@pytest.mark.parametrize(
    ("mode", "options"), [("I;16", {}), ("LA", {}), ("RGBA", {}), ("P", {"transparency": 0})]
)
def test_pictures_that_would_lose_something_are_refused(tmp_path, mode, options):
    write(tmp_path / "a", draw(5))
    write(tmp_path / "b", draw(4))
    Image.new(mode, (5, 6)).save(tmp_path / "b" / "last.png", **options)
    with pytest.raises(DataFormatError, match=rf"of 8 bits .* found mode {mode} in .*last\.png"):
        load_dataset(tmp_path)


def test_one_picture_in_color_makes_all_of_them_so(tmp_path):
    write(tmp_path / "gray", draw(5))
    write(tmp_path / "color", draw(5, 3))
    images = load_dataset(tmp_path).train.images
    assert images.shape[1:] == (6, 5, 3)


def test_a_picture_that_moves_to_another_class_is_noticed(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        write(tmp_path / name, draw(3))
    load_dataset(tmp_path)
    (tmp_path / "train" / "a" / "002.png").rename(tmp_path / "train" / "b" / "003.png")
    assert load_dataset(tmp_path).train.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_pictures_that_differ_in_size_are_one_line(tmp_path):
    write(tmp_path / "a", draw(3))
    write(tmp_path / "b", draw(3, size=(6, 9)))
    with pytest.raises(DataFormatError, match=r"of one size, found 5x6 pixels in .*9x6 in .*b"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_picture_is_named(tmp_path, damage):
    write(tmp_path / "a", draw(6))
    file = tmp_path / "a" / "003.png"
    content = {"empty": b"", "cut": file.read_bytes()[:-30], "text": b"no picture"}[damage]
    file.write_bytes(content)
    with pytest.raises(DataFormatError, match=r"expected a picture in .*003\.png"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((30_000, 300), "at most 5,592,405 pixels, found 30000x300 in"),
        ((60_000, 3_000), r"expected a picture in .*000\.png: Image size \(180000000 pixels\) exc"),
    ],
)
def test_a_picture_that_claims_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path, size, message
):
    write(tmp_path / "a", draw(2))
    Image.new("1", size).save(tmp_path / "a" / "000.png")
    with pytest.raises(DataFormatError, match=message):
        load_dataset(tmp_path)


def test_a_class_that_is_only_in_the_test_folder_is_refused(tmp_path):
    write(tmp_path / "train" / "a", draw(3))
    write(tmp_path / "test" / "b", draw(3))
    with pytest.raises(DataFormatError, match=r"folders of the classes a in .*test, found b"):
        load_dataset(tmp_path)


def test_a_missing_test_folder_is_named(tmp_path):
    write(tmp_path / "train" / "a", draw(3))
    with pytest.raises(DatasetNotFoundError, match=r"expected pictures in .*test, as in"):
        load_dataset(tmp_path)


def test_a_network_is_trained_on_pictures_and_names_their_classes(tmp_path):
    for name, level in (("dark", 0), ("light", 200)):
        write(tmp_path / name, draw(20, size=(8, 8)) // 5 + np.uint8(level))
    config = mnistjax.TrainConfig(model="softmax", epochs=30, batch_size=8, learning_rate=0.05)
    fitted = mnistjax.fit(config, load_dataset(tmp_path), images="streamed")
    assert fitted.result["test_accuracy"] == 1
    assert fitted.trained.info.class_names == ("dark", "light")
