"""How well a short training reads photographs made from real test digits."""

from __future__ import annotations

import difflib

import numpy as np
import pytest
from degraded import degraded_digits, degraded_rows
from PIL import Image
from scipy import ndimage

import mnistjax

# To make a photograph takes longer than to read it.
FEW_OR_MANY = pytest.mark.parametrize(
    "count", [60, pytest.param(1_000, marks=pytest.mark.full, id="1000")]
)


@pytest.mark.mnist
@FEW_OR_MANY
def test_photographed_digits_are_recognized(trained, dataset, count):
    pictures = degraded_digits(dataset.test.images[:count], 1)
    predictions = mnistjax.predict(trained, pictures)
    assert np.mean(predictions.labels == dataset.test.labels[:count]) > 0.95
    doubted = [bool(warnings) for warnings in predictions.warnings]
    assert np.mean(doubted) < 0.15


@pytest.mark.mnist
@FEW_OR_MANY
def test_photographed_codes_are_read(trained, dataset, count):
    """Five digits in a row, as on an envelope."""
    rows = degraded_rows(dataset.test.images[:count], dataset.test.labels[:count], 1)
    right = [mnistjax.read_digits(trained, picture).text == text for picture, text in rows]
    # Nine in ten of many such codes are right; twelve are a small sample.
    assert np.mean(right) > 0.65


def touching_row(images) -> Image.Image:
    """Black digits side by side, each of which begins in the column where the last one ends."""
    inks = [ndimage.zoom(image[..., 0] / 255, 3, order=1) for image in images]
    bounds = [np.flatnonzero((ink > 0.5).any(axis=0))[[0, -1]] for ink in inks]
    cropped = [ink[:, left : right + 1] for ink, (left, right) in zip(inks, bounds, strict=True)]
    row = cropped[0]
    for ink in cropped[1:]:
        joint = np.maximum(row[:, -1:], ink[:, :1])
        row = np.concatenate([row[:, :-1], joint, ink[:, 1:]], axis=1)
    return Image.fromarray(np.uint8(255 * (1 - np.pad(row, 40))))


@pytest.mark.mnist
@pytest.mark.parametrize("count", [20, 100])
def test_long_rows_of_touching_digits_are_read(trained, dataset, count):
    text = "".join(map(str, dataset.test.labels[:count]))
    found = mnistjax.read_digits(trained, touching_row(dataset.test.images[:count])).text
    blocks = difflib.SequenceMatcher(None, found, text, autojunk=False).get_matching_blocks()
    assert abs(len(found) - count) < 0.25 * count
    assert sum(block.size for block in blocks) > 0.5 * count


@pytest.mark.mnist
def test_images_of_mnist_stay_as_they_are(dataset):
    images = dataset.test.images[:300]
    kept = [
        np.array_equal(mnistjax.reading.prepare_digit(image[..., 0]).image, image)
        for image in images
    ]
    assert np.mean(kept) > 0.9


@pytest.mark.mnist
def test_prepared_again_from_dark_on_light_they_are_nearly_the_same(dataset):
    for image in dataset.test.images[:50]:
        other = mnistjax.reading.prepare_digit(255 - image[..., 0]).image.astype(float)
        apart = np.abs(other - image).sum() / (other + image).sum()
        assert apart < 0.45
