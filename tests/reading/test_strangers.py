"""Whether pictures of what is no digit get a warning, and pictures of digits none."""

from __future__ import annotations

import numpy as np
import pytest
import strange_pictures as made
from degraded import degraded_digits
from PIL import Image

import mnistjax
from mnistjax.reading import digit, doubts, strangers

# Measured on hundreds of pictures; these are small samples.
MOST, FEW = 0.85, 0.07


@pytest.fixture(scope="module", params=["mlp", "speed"])
def trained(request, dataset):
    config = mnistjax.get_recipe(request.param).replace(epochs=2, label_smoothing=0.0)
    return mnistjax.fit(config, dataset).trained


@pytest.fixture(scope="module")
def strange():
    """Prepared pictures of each kind: to make a picture takes longer than to read it."""
    unlike = "".join(letter for letter in made.string.ascii_letters if letter not in made.ALIKE)
    kinds = {
        "letters": made.letters(21, unlike + unlike),
        "scribbles": made.scribbles(64, 22),
        "symbols": made.letters(23, 3 * made.SYMBOLS),
        "blank": made.blank_papers(30, 24),
    }
    return {kind: prepared(pictures) for kind, pictures in kinds.items()}


@pytest.fixture(scope="module")
def photographed(dataset):
    return prepared(degraded_digits(dataset.test.images[:100], 25))


def prepared(pictures):
    opened = map(mnistjax.reading.open_picture, pictures)
    return [mnistjax.reading.prepare_digit(gray) for gray in opened]


def warned(predictions):
    return np.array([bool(warnings) for warnings in predictions.warnings])


@pytest.mark.mnist
@pytest.mark.parametrize("kind", ["letters", "scribbles", "symbols", "blank"])
def test_what_is_no_digit_gets_a_warning(trained, strange, kind):
    assert warned(mnistjax.predict(trained, strange[kind])).mean() > MOST


@pytest.mark.mnist
def test_photographed_digits_that_are_read_right_get_no_warning(trained, photographed, dataset):
    predictions = mnistjax.predict(trained, photographed)
    right = predictions.labels == dataset.test.labels[: len(photographed)]
    assert warned(predictions)[right].mean() < FEW


@pytest.mark.mnist
def test_digits_that_are_read_right_get_no_warning(trained, dataset):
    predictions = mnistjax.predict(trained, dataset.test.images[:2_000])
    right = predictions.labels == dataset.test.labels[:2_000]
    assert warned(predictions)[right].mean() < FEW
    assert warned(predictions)[~right].mean() > 0.7


def test_the_likeness_is_a_probability():
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), np.uint8)
    each = np.stack([strangers.likeness(images, np.full(300, label)) for label in range(10)])
    assert each.dtype == np.float32
    assert each.min() >= 0
    assert each.sum(axis=0).max() <= 1 + 1e-5
    one = [strangers.likeness(image[None], np.array([3]))[0] for image in images]
    np.testing.assert_allclose(one, each[3], atol=1e-5)


def test_no_image_has_no_likeness():
    none = np.zeros((0, 28, 28, 1), np.uint8)
    assert strangers.likeness(none, np.zeros(0, int)).shape == (0,)


def test_only_networks_for_mnist_are_compared():
    images, rows = np.zeros((2, 28, 28, 1), np.uint8), np.eye(10, dtype=np.float32)[:2]
    unsure = np.full((2, 10), 0.1, np.float32)
    fashion, none = mnistjax.DatasetInfo("fashion_mnist", 10), ((), ())
    assert doubts.doubt_warnings(fashion, images, rows, none) == ((), ())
    assert all(doubts.doubt_warnings(fashion, images, unsure, none))
    mnist = mnistjax.DatasetInfo("mnist", 10)
    assert doubts.doubt_warnings(mnist, images, rows, none) == (("perhaps no digit",),) * 2
    for other in (
        mnistjax.DatasetInfo("mnist", 11),
        mnistjax.DatasetInfo("mnist", 10, image_shape=(28, 28, 3)),
        mnistjax.DatasetInfo("mnist", 10, tuple("abcdefghij")),
    ):
        assert not strangers.knows(other)


def test_paper_whose_marks_weigh_nothing_is_read():
    """Otsu's threshold may be below zero where the estimate of the paper is far off."""
    strength = np.full((30, 30), -1.0)
    mask = np.zeros((30, 30), bool)
    mask[10:20, 12:14] = True
    assert digit.main_components(mask, strength).any()


def test_letters_are_drawn_in_ink():
    rng = np.random.default_rng(0)
    ink = made.letter_ink("A", made.FONTS[0], rng)
    assert ink.dtype == bool
    assert ink.any()
    assert isinstance(made.photographed(ink, rng), Image.Image)


@pytest.mark.mnist
def test_strokes_that_seem_separate_may_be_one_digit_and_several_digits_never(dataset):
    digits, labels = dataset.test.images[:50], dataset.test.labels[:50]
    pairs = np.concatenate([digits, np.roll(digits, 1, axis=0)], axis=2)[:, :, ::2]
    images, labels = np.concatenate([digits, pairs]), np.tile(labels, 2)
    found = ((doubts.SEVERAL, "a blot"),) * 100
    rows = np.eye(10, dtype=np.float32)[labels]
    warned = doubts.doubt_warnings(mnistjax.DatasetInfo("mnist", 10), images, rows, found)
    several = np.array([doubts.SEVERAL in warnings for warnings in warned])
    assert np.mean(several[:50]) < 0.1
    assert np.mean(several[50:]) > 0.95
    assert all("a blot" in warnings for warnings in warned)
