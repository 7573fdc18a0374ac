from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistjax.data.splits import Dataset, DatasetInfo, Split, split_validation
from mnistjax.errors import ConfigError, DataFormatError


def make_split(labels, shape=(28, 28, 1)):
    labels = np.asarray(labels, np.int32)
    images = np.zeros((len(labels), *shape), np.uint8)
    images.reshape(len(labels), -1)[:, 0] = np.arange(len(labels)) % 256
    return Split(images, labels)


def test_name_and_classes_are_enough_for_ones_own_data():
    info = DatasetInfo("mine", 3)
    assert info.class_names == ("0", "1", "2")
    dataset = Dataset(make_split([0, 1, 2]), make_split([2]), info)
    assert (len(dataset.train), len(dataset.test), dataset.source) == (3, 1, "arrays in memory")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes of 'x' must be from 1 to 65,536, found 0"),
        ({"num_classes": 10**9}, "num_classes of 'x' must be from 1 to 65,536, found 1000000000"),
        ({"num_classes": 2, "class_names": ("a",)}, "must hold 2 names, found 1"),
        ({"num_classes": 2, "image_shape": (28, 28)}, r"image_shape of 'x' must be .*\(28, 28\)"),
        ({"num_classes": 2, "image_shape": (28, 0, 1)}, "image_shape of 'x' must be"),
        ({"num_classes": 2, "image_shape": (28.0, 28, 1)}, "image_shape of 'x' must be"),
        ({"num_classes": 2, "image_shape": (2**13,) * 3}, "must have at most 16,777,216 values"),
        ({"num_classes": 1, "class_names": ("a\x1b[1m",)}, "must be printable text"),
        ({"num_classes": 1, "class_names": (1,)}, "must be printable text"),
    ],
)
def test_an_impossible_description_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DatasetInfo("x", **arguments)


IMAGES = np.zeros((2, 28, 28, 1), np.uint8)
LABELS = np.zeros(2, np.int32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES.astype(np.float32),
            LABELS,
            "images must be .*uint8 .*found float32 [2, 28",
        ),
        (IMAGES[..., 0], LABELS, "[N, H, W, C], found uint8 [2, 28, 28]"),
        (IMAGES.tolist(), LABELS, "images must be a NumPy array, .*found list"),
        (np.ma.array(IMAGES), LABELS, "images must be a NumPy array, .*found MaskedArray"),
        (IMAGES, np.ma.array(LABELS), "labels must be a NumPy array, .*found MaskedArray"),
        (IMAGES, LABELS.astype(np.int64), "labels must be .*int32 [N], found int64 [2]"),
        (IMAGES, LABELS[:, None], "labels must be .*int32 [N], found int32 [2, 1]"),
        (IMAGES, LABELS[:1], "found 2 images and 1 labels"),
        (IMAGES[:0], LABELS[:0], "at least one pixel, found shape (0, 28, 28, 1)"),
        (IMAGES, np.array([0, -3], np.int32), "labels must be >= 0, found -3 at index 1"),
    ],
)
def test_a_split_checks_its_arrays(images, labels, message):
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(DataFormatError, match=pattern):
        Split(images, labels)


def test_a_data_set_names_the_split_and_the_first_bad_label():
    good, bad = make_split([0, 1, 2]), make_split([0, 3, 4])
    with pytest.raises(DataFormatError, match="train labels of 'm' must be below 3, found 3 at in"):
        Dataset(bad, good, DatasetInfo("m", 3))
    with pytest.raises(DataFormatError, match="test labels of 'm' must be below 3, found 3 at ind"):
        Dataset(good, bad, DatasetInfo("m", 3))


def test_both_splits_must_have_the_shape_of_the_description():
    small, good = make_split([0], shape=(8, 8, 1)), make_split([0])
    with pytest.raises(DataFormatError, match=r"test images .*\(28, 28, 1\), found \(8, 8, 1\)"):
        Dataset(good, small, DatasetInfo("m", 1))


@given(
    per_class=st.integers(4, 12),
    classes=st.integers(1, 5),
    fraction=st.floats(0.25, 0.75),
    seed=st.integers(0, 2**32 - 1),
)
def test_validation_is_a_stratified_partition(per_class, classes, fraction, seed):
    split = make_split(np.arange(per_class * classes) % classes)
    train, validation = split_validation(split, fraction, seed=seed)
    assert len(validation) == int(np.ceil(fraction * len(split)))
    rows = np.concatenate([train.images, validation.images]).reshape(len(split), -1)[:, 0]
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(split)))
    shares = np.bincount(validation.labels, minlength=classes)
    assert shares.max() - shares.min() <= 1


def test_validation_depends_on_the_seed_alone():
    split = make_split(np.arange(200) % 10)
    first, again, other = (split_validation(split, 0.2, seed=seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.images != other.images).any()


def test_fraction_zero_holds_nothing_out():
    split = make_split([0, 1])
    assert split_validation(split, 0, seed=0) == (split, None)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_out_of_bounds_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"validation fraction must be >= 0 and < 1, found"):
        split_validation(make_split([0, 1] * 10), fraction, seed=0)


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 1] * 10, 0.01), ([0, 1] * 10, 0.99), ([0] * 20 + [1], 0.5), ([0] * 98 + [1] * 2, 0.1)],
)
def test_a_side_without_some_class_is_refused(labels, fraction):
    with pytest.raises(ConfigError, match=rf"fraction {fraction} of {len(labels)} images .*2 clas"):
        split_validation(make_split(labels), fraction, seed=0)
