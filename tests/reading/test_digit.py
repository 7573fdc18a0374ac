"""One digit per picture: prepared as MNIST's were, checked, and predicted."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from degraded import degraded_digits
from drawings import DRAWINGS, REFERENCE, color_image, difference, drawn, prepared
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import mnistjax
from mnistjax.reading import doubts, ink, mnist_format, network, planes


def test_a_prepared_digit_has_the_geometry_of_mnist():
    for which in range(len(DRAWINGS)):
        image = prepared(drawn(which))[..., 0]
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        assert np.abs(np.subtract(ndimage.center_of_mass(image), 14)).max() <= 0.51
        assert image.max() == 1
        assert np.mean(image == 0) > 0.6


@given(
    which=st.integers(0, 3),
    margins=st.tuples(*[st.integers(5, 90)] * 4),
    scale=st.integers(1, 3),
    dark=st.booleans(),
    slope=st.tuples(*[st.floats(-0.3, 0.3)] * 2),
    contrast=st.floats(0.2, 1),
)
@settings(max_examples=10)
def test_place_size_polarity_light_and_contrast_do_not_matter(
    which, margins, scale, dark, slope, contrast
):
    plane = contrast * drawn(which, margins=margins, scale=scale)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in plane.shape), indexing="ij")
    light = slope[0] * rows + slope[1] * columns
    image = prepared((1 - plane if dark else plane) + light)
    assert difference(image, prepared(drawn(which))) < 0.2


@given(which=st.integers(0, 3), width=st.integers(5, 12), rows=st.integers(0, 1))
@settings(max_examples=15)
def test_an_image_like_mnist_s_stays_as_it_is(which, width, rows):
    image = mnistjax.reading.prepare_digit(drawn(which, width=width)).image
    image = np.roll(image, rows, axis=0)
    # A digit whose center of mass is far from its middle reaches into the margin of two pixels.
    assume(image.sum() == image[2:-2, 2:-2].sum())
    again = mnistjax.reading.prepare_digit(image[..., 0])
    np.testing.assert_array_equal(again.image, image)
    assert again.warnings == ()


@given(shape=st.tuples(*[st.integers(1, 12)] * 2), place=st.tuples(*[st.integers(0, 5)] * 2))
@settings(max_examples=20)
def test_the_bounding_box_is_that_of_what_was_set(shape, place):
    mask = np.zeros((20, 20), bool)
    box = tuple(slice(start, start + size) for start, size in zip(place, shape, strict=True))
    mask[box][[0, -1], [0, -1]] = True
    assert planes.bounding_box(mask) == box
    assert planes.crop(mask).shape == shape


@given(st.tuples(*[st.integers(1, 5000)] * 2), st.integers(1, 2000))
def test_a_fitted_size_has_the_longest_side_and_the_same_aspect(shape, longest):
    fitted = planes.fit_size(shape, longest)
    assert max(fitted) == longest
    assert min(fitted) >= 1
    assert abs(min(fitted) - min(shape) * longest / max(shape)) <= 1


def test_a_small_image_that_is_off_center_is_centered():
    image = mnistjax.reading.prepare_digit(drawn(0)).image[..., 0]
    moved = np.roll(image, (3, -3), axis=(0, 1))
    assert difference(prepared(moved / 255.0), image[..., None] / 255) < 0.2


@pytest.mark.parametrize("width", [2, 3, 20, 26])
def test_thin_and_thick_strokes_become_like_mnist_s(width):
    strokes = mnist_format.normalize_strokes(planes.crop(drawn(2, width=width, scale=4) > 0.5))
    thickness = planes.stroke_width(strokes) * 20 / max(strokes.shape)
    assert mnist_format.MIN_STROKE - 0.5 < thickness < mnist_format.MAX_STROKE + 0.7


def test_thinning_breaks_no_stroke():
    drawing = drawn(3, width=22, scale=4) > 0.5
    drawing[:200, :] |= drawn(3, width=6, scale=4)[:200] > 0.5
    strokes = mnist_format.normalize_strokes(planes.crop(drawing))
    assert len(planes.find_components(strokes)[1]) == 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
@settings(max_examples=40)
def test_to_mnist_takes_any_shape(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.7
    mask[0, 0] = True
    image = mnist_format.to_mnist(mask)
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8
    assert image.any()


def test_otsu_separates_two_groups():
    values = np.concatenate([np.linspace(0, 1, 500), np.linspace(3, 4, 50)])
    assert 0.9 < ink.otsu_threshold(values) < 3.1


def test_specks_and_what_comes_in_from_the_edge_are_dropped():
    plane = drawn(0, margins=(40, 40, 40, 40))
    plane[20:24, 300:304] = 1
    plane[100:110, :20] = 1
    assert difference(prepared(plane), REFERENCE) < 0.1


@pytest.mark.parametrize(
    ("gray", "words"),
    [
        (np.zeros((0, 5)), "found shape (0, 5)"),
        (np.zeros((5, 5, 3)), "found shape (5, 5, 3)"),
        (np.full((40, 40), 0.5), "one color only"),
        (np.zeros((28, 28), np.uint8), "one color only"),
        (np.full((4, 4), np.nan), "one color only"),
    ],
)
def test_what_cannot_be_a_picture_of_a_digit_is_refused(gray, words):
    with pytest.raises(mnistjax.errors.DataFormatError) as caught:
        mnistjax.reading.prepare_digit(gray, "my.png")
    assert words in str(caught.value)
    assert str(caught.value).endswith(": my.png")


def noise(seed=0):
    return np.random.default_rng(seed).random((80, 80), np.float32)


def several():
    return np.hstack([drawn(0), drawn(1)])


def dots():
    plane = np.zeros((200, 200))
    for row, column in itertools.product(range(30, 170, 30), repeat=2):
        plane[row : row + 9, column : column + 9] = 1
    return plane


def blot():
    plane = np.zeros((200, 200))
    plane[40:160, 50:150] = 1
    return plane


@pytest.mark.parametrize(
    ("gray", "words"),
    [
        (noise(), "contrast"),
        (several(), "several separate"),
        (dots(), "several separate"),
        (blot(), "blot"),
    ],
)
def test_what_looks_like_no_digit_gets_a_warning(gray, words):
    (warning,) = mnistjax.reading.prepare_digit(gray).warnings
    assert words in warning


def test_digits_get_no_warning():
    for which in range(len(DRAWINGS)):
        assert mnistjax.reading.prepare_digit(drawn(which)).warnings == ()


def test_a_network_that_is_not_sure_says_so():
    unsure = np.full(10, (1 - 0.99 * doubts.MIN_CONFIDENCE) / 9)
    unsure[3] = 0.99 * doubts.MIN_CONFIDENCE
    assert len(doubts.confidence_warnings(unsure)) == 1
    assert doubts.confidence_warnings(np.eye(10)[3]) == ()


@pytest.fixture(scope="module")
def trained(digits_network):
    return digits_network


def test_arrays_are_predicted_as_they_are(trained):
    images = mnistjax.load_dataset("digits").test.images[:7]
    predictions = mnistjax.predict(trained, images)
    expected = network.probabilities(trained, images)
    np.testing.assert_array_equal(predictions.probabilities, expected)
    np.testing.assert_array_equal(predictions.inputs, images)
    assert predictions.class_names == tuple("0123456789")
    assert len(predictions.warnings) == 7
    rows = np.arange(7)
    np.testing.assert_array_equal(expected[rows, predictions.labels], predictions.confidences)
    second = expected[rows, predictions.runners_up]
    np.testing.assert_array_equal(second, np.sort(expected, axis=1)[:, -2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        predictions.inputs = images


def test_no_image_at_all_gives_no_prediction(trained):
    predictions = mnistjax.predict(trained, [])
    assert predictions.probabilities.shape == (0, 10)
    assert predictions.inputs.shape == (0, 28, 28, 1)
    assert len(predictions.labels) == len(predictions.runners_up) == 0


def test_a_path_an_image_a_prepared_digit_and_lists_of_them_are_the_same(trained, tmp_path):
    path = tmp_path / "two.png"
    image = color_image((255,) * 3, (30,) * 3)
    image.save(path)
    alone = mnistjax.predict(trained, path)
    ready = mnistjax.reading.prepare_digit(mnistjax.reading.open_picture(path))
    for pictures in ([path], str(path), image, [image], (path,), ready, [ready]):
        other = mnistjax.predict(trained, pictures)
        np.testing.assert_array_equal(other.probabilities, alone.probabilities)
    assert difference(alone.inputs[0] / 255, REFERENCE) < 0.05


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 28, 28, 1)), np.zeros((28, 28, 1), np.uint8), np.zeros((2, 8, 8, 1), "u1")],
)
def test_arrays_of_another_shape_or_dtype_are_refused(trained, images):
    with pytest.raises(
        mnistjax.errors.DataFormatError, match=r"expected images uint8 \[N, 28, 28, 1\]"
    ):
        mnistjax.predict(trained, images)


def test_a_network_of_another_image_shape_is_refused(trained):
    info = mnistjax.DatasetInfo("color", 10, image_shape=(32, 32, 3))
    other = dataclasses.replace(trained, info=info)
    with pytest.raises(
        mnistjax.errors.ConfigError, match=r"for images of shape \(28, 28, 1\), found"
    ):
        mnistjax.predict(other, mnistjax.reading.prepare_digit(drawn()))


def test_photographs_are_made_the_same_again():
    images = mnistjax.load_dataset("digits").test.images[:4]
    once, again = degraded_digits(images, 5), degraded_digits(images, 5)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    other_seed = degraded_digits(images, 6)
    assert any(one.size != other.size for one, other in zip(once, other_seed, strict=True))


def test_photographs_of_digits_show_what_was_photographed(trained):
    test = mnistjax.load_dataset("digits").test
    images, labels = test.images[:25], test.labels[:25]
    predictions = mnistjax.predict(trained, degraded_digits(images, 1))
    assert np.mean(predictions.labels == labels) > 0.8
