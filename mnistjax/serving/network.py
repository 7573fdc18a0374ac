"""A network as few compiled programs, one for each size of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from mnistjax.runs import TrainedModel
from mnistjax.training import compiler_options, scale_pixels

Logits = Callable[[np.ndarray], np.ndarray]
"""Maps images, uint8 [N, H, W, C] with N at least 1, to logits, float32 [N, num_classes]."""

# Each program compiles for 0.04 s (`cnn`) to 0.2 s (`cnn-bn`); fewer sizes pad more.
SIZES = (1, 2, 4, 8, 16, 32, 64)


class CompiledNetwork:
    """Computes logits for any number of images without ever compiling again.

    Images are padded to the next of a few sizes. All programs are compiled, and have run once, when
    an instance has been created. Threads may share it.

    >>> import mnistjax
    >>> images = np.zeros((3, 28, 28, 1), np.uint8)
    >>> model, info = mnistjax.create_model("mlp"), mnistjax.DatasetInfo("mine", 10)
    >>> variables = model.init(jax.random.key(0), mnistjax.scale_pixels(images))
    >>> network = CompiledNetwork(mnistjax.TrainedModel(model, variables, info), sizes=(1, 4))
    >>> network(images).shape
    (3, 10)
    """

    def __init__(self, trained: TrainedModel, sizes: Sequence[int] = SIZES) -> None:
        """Compiles the programs.

        Args:
            trained: the network.
            sizes: numbers of images per call of a program, in ascending order.
        """
        self._sizes = tuple(sizes)
        self._shape = tuple(trained.info.image_shape)
        variables = jax.device_put(trained.variables)

        def logits(images: jax.Array) -> jax.Array:
            return trained.model.apply(variables, scale_pixels(images))[0]

        # The weights are constants, not arguments: a call for one image takes 45 instead of 57
        # microseconds, and compiling two thirds of the time.
        self._program = jax.jit(logits, compiler_options=compiler_options())
        for size in self._sizes:
            self(np.zeros((size, *self._shape), np.uint8))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of images, uint8 [N, H, W, C] with N at least 1: float32 [N, K]."""
        largest = self._sizes[-1]
        if len(images) <= largest:
            return self._compute(images)
        parts = [images[start : start + largest] for start in range(0, len(images), largest)]
        return np.concatenate([self._compute(part) for part in parts])

    def _compute(self, images: np.ndarray) -> np.ndarray:
        size = next(size for size in self._sizes if size >= len(images))
        if size != len(images):
            padded = np.zeros((size, *self._shape), np.uint8)
            padded[: len(images)] = images
        else:
            padded = images
        return np.asarray(self._program(padded))[: len(images)]
