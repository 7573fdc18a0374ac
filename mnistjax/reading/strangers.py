"""A second opinion on whether an image shows a digit: a small network that knows other shapes too.

A network for digits gives every image the probabilities of ten digits, which sum to 1, and is often
sure of a letter. This network has an eleventh class for everything that is no digit. It was trained
on MNIST's training images and on letters, random strokes and changed digits, as outliers (Hendrycks
et al., 2019, https://arxiv.org/abs/1812.04606), by `benchmarks/outliers.py`, which writes the file
`strangers.npz`: kernels and biases, float16. It is applied with NumPy.
"""

from __future__ import annotations

import functools
import importlib.resources

import numpy as np

from mnistjax.data import DatasetInfo

# Probabilities of the digit below which an image gets a warning, and from which on the network need
# not be sure, and separate shapes are one digit. Of digits held out from training, 1 % are below
# the first, and 2 % of redrawn ones; of 180 pictures of two or three digits, none is above 0.5.
MIN_LIKENESS = 0.3
SURE_LIKENESS = 0.8
ONE_LIKENESS = 0.9
_BATCH = 256  # Images at a time; each takes 100 kB.


def knows(info: DatasetInfo) -> bool:
    """Returns whether a network was trained on MNIST's digits, of which this module has an opinion.

    Args:
        info: the data set of the network.

    >>> knows(DatasetInfo("mnist", 10)), knows(DatasetInfo("fashion_mnist", 10))
    (True, False)
    """
    digits = tuple(map(str, range(10)))
    return info.name == "mnist" and info.class_names == digits and info.image_shape == (28, 28, 1)


def likeness(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the probability that each image shows the digit that it is taken for.

    Args:
        images: uint8 [N, 28, 28, 1], light on dark, in the format of MNIST.
        labels: int [N], the digits from 0 to 9.

    Returns:
        float32 [N], from 0 to 1. The rest is the probability that it is another digit or none.

    >>> likeness(np.zeros((1, 28, 28, 1), np.uint8), np.array([8])) < 0.5
    array([ True])
    """
    from scipy.special import softmax

    starts = range(0, len(images), _BATCH)
    logits = [_logits(images[start : start + _BATCH]) for start in starts]
    rows = softmax(np.concatenate([np.zeros((0, 11), np.float32), *logits]), axis=1)
    return rows[np.arange(len(rows)), labels]


@functools.cache
def _weights() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns the kernel and the bias of each layer, float32."""
    file = importlib.resources.files("mnistjax.reading") / "strangers.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return tuple(
            (arrays[f"kernel{i}"].astype(np.float32), arrays[f"bias{i}"].astype(np.float32))
            for i in range(len(arrays) // 2)
        )


def _logits(images: np.ndarray) -> np.ndarray:
    """Applies the network to uint8 [N, 28, 28, 1]; returns float32 [N, 11]."""
    x = images / np.float32(255)
    *hidden, (last, bias) = _weights()
    for kernel, shift in hidden:
        x = _conv_pool(x, kernel) if kernel.ndim == 4 else x.reshape(len(x), -1) @ kernel
        x = np.maximum(x + shift, 0)
    return x @ last + bias


def _conv_pool(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolves [N, H, W, C] with [k, k, C, D], without padding, and keeps maxima of 2x2 pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    x = np.tensordot(windows, kernel.transpose(2, 0, 1, 3), 3)
    count, height, width, depth = x.shape
    return x.reshape(count, height // 2, 2, width // 2, 2, depth).max((2, 4))
