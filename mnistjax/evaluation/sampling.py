"""Drawing a representative sample of a split."""

from __future__ import annotations

import numpy as np

from mnistjax.data import Split
from mnistjax.errors import ConfigError


def draw_sample(split: Split, max_images: int | None, *, seed: int = 0) -> Split:
    """Draws a stratified random sample: each class keeps its share of the images.

    The first images would not be representative: the first 5,000 test images of MNIST are harder
    than the last 5,000.

    Args:
        split: the images and their labels.
        max_images: the size of the sample, at least 1; all images if None or larger than the split.
        seed: the same seed draws the same images.

    Returns:
        The sample, in the order of `split`. The number of images of each class is proportional to
        its share of the split, rounded up or down.

    Raises:
        ConfigError: `max_images` is less than 1.

    >>> import mnistjax
    >>> sample = draw_sample(mnistjax.load_dataset("digits").test, 20)
    >>> np.bincount(sample.labels).tolist()
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    count = len(split)
    if max_images is None or max_images >= count:
        return split
    if max_images < 1:
        raise ConfigError(f"max_images must be at least 1, found {max_images}")
    shuffled = np.random.default_rng(seed).permutation(count)
    by_class = shuffled[np.argsort(split.labels[shuffled], kind="stable")]
    # Equal steps through the images sorted by class take from each class in proportion.
    steps = (2 * np.arange(max_images) + 1) * count // (2 * max_images)
    chosen = np.sort(by_class[steps])
    return Split(split.images[chosen], split.labels[chosen])
