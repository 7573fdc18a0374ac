"""A small data set, settings that learn it at once, and a callback that keeps what it is told."""

from __future__ import annotations

import functools

import numpy as np

import mnistjax
from mnistjax import Dataset, DatasetInfo, Split, TrainConfig

CONFIG = TrainConfig(model="mlp", epochs=3, batch_size=32, learning_rate=3e-3)


def squares(count, seed):
    """12x12 images with a bright square, whose corner of the image is the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 12, 12, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % 4
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 3, 2) + 6 * np.array(divmod(label, 2))
        image[row : row + 3, column : column + 3] = rng.integers(150, 256)
    return Split(images, labels)


@functools.cache
def dataset():
    info = DatasetInfo("squares", 4, image_shape=(12, 12, 1))
    return Dataset(squares(203, 0), squares(77, 1), info, "drawn by a test")


class Recorder(mnistjax.Callback):
    def __init__(self, calls=None, name="", fails_at=None, error=KeyboardInterrupt):
        self.calls = [] if calls is None else calls
        self.name = name
        self.fails_at = fails_at
        self.error = error

    def note(self, hook, value=None):
        self.calls.append((self.name, hook, value))
        if hook == self.fails_at:
            raise self.error("as the test asked")

    def on_start(self, run):
        self.note("start", run)

    def on_compiled(self, seconds):
        self.note("compiled", seconds)

    def on_steps(self, step):
        self.note("steps", step)

    def on_epoch(self, row):
        self.note("epoch", row)

    def on_end(self, fitted):
        self.note("end", fitted)

    def close(self):
        self.note("close")
