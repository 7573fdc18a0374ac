"""A sample of a split: drawn, of the right size, and with every class by its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnistjax
from mnistjax.errors import ConfigError
from mnistjax.evaluation import draw_sample


def split_of(labels):
    """Each image holds its own index."""
    labels = np.asarray(labels, np.int32)
    images = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    return mnistjax.Split(images, labels)


def indices(sample):
    return np.ascontiguousarray(sample.images).reshape(-1, 2).view(np.uint16)[:, 0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_a_sample_holds_every_class_by_its_share_to_one_image(labels, max_images, seed):
    split = split_of(labels)
    sample = draw_sample(split, max_images, seed=seed)
    chosen = indices(sample)
    assert len(sample) == min(max_images, len(split))
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(sample.labels, split.labels[chosen])
    shares = np.bincount(split.labels, minlength=5) * len(sample) / len(split)
    assert (np.abs(np.bincount(sample.labels, minlength=5) - shares) < 1).all()


def test_the_images_are_drawn_from_everywhere_and_the_seed_decides():
    split = split_of(np.arange(2000) % 10)
    first, again, other = (indices(draw_sample(split, 100, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (np.bincount(first // 500, minlength=4) > 10).all()


def test_without_a_limit_it_is_the_whole_split():
    split = split_of([0, 1, 1])
    assert draw_sample(split, None) is split
    assert draw_sample(split, 3) is split
    with pytest.raises(ConfigError, match="max_images must be at least 1, found 0"):
        draw_sample(split, 0)
