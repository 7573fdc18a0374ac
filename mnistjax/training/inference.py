"""Runs a network on any number of images with one compiled program, in batches of one shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from mnistjax.errors import ConfigError
from mnistjax.models import Model, Variables
from mnistjax.training.compiler import compiler_options
from mnistjax.training.metrics import Metrics
from mnistjax.training.pixels import scale_pixels
from mnistjax.training.placing import put

EVAL_BATCH_SIZE = 500


def predict_logits(
    model: Model,
    variables: Variables,
    images: np.ndarray,
    *,
    batch_size: int = EVAL_BATCH_SIZE,
    rows: NamedSharding | None = None,
) -> np.ndarray:
    """Computes the logits of every image.

    Args:
        model: the network. Its program is compiled once per batch size, image shape and dtype.
        variables: its parameters and running statistics.
        images: uint8 [N, H, W, C], or float [N, H, W, C] with pixels in [0, 1]; N may be 0.
        batch_size: images per call of the program; it affects the logits only by rounding.
        rows: how the rows of a batch are divided over devices, which all hold `variables`; None
            means one device. The number of devices must divide `batch_size`.

    Returns:
        float32 [N, num_classes].

    Raises:
        ConfigError: `batch_size` is less than 1.
        TypeError: `scale_pixels` does not accept the dtype of the images.

    >>> from mnistjax.models import create_model
    >>> model, images = create_model("softmax"), np.zeros((3, 4, 4, 1), np.uint8)
    >>> variables = model.init(jax.random.key(0), scale_pixels(images))
    >>> predict_logits(model, variables, images, batch_size=2).shape
    (3, 10)
    """
    program = functools.partial(logits_program(model, rows), variables)
    return in_batches(program, images, batch_size=batch_size, rows=rows)


@functools.lru_cache(maxsize=32)
def logits_program(model: Model, rows: NamedSharding | None = None) -> jax.stages.Wrapped:
    """Returns the jitted `(variables, images) -> logits`, the same object for the same arguments.

    Args:
        model: the network.
        rows: how the images are divided over devices, which all get all logits; None means one
            device.
    """

    def logits(variables: Variables, images: jax.Array) -> jax.Array:
        return model.apply(variables, scale_pixels(images))[0]

    whole = NamedSharding(rows.mesh, PartitionSpec()) if rows else None
    return jax.jit(logits, out_shardings=whole, compiler_options=compiler_options())


def measure_logits(
    logits: np.ndarray, labels: np.ndarray, *, batch_size: int = EVAL_BATCH_SIZE
) -> Metrics:
    """Computes the metrics of logits; every image counts exactly once.

    Args:
        logits: float [N, num_classes].
        labels: int [N], 0 to num_classes - 1.
        batch_size: rows per call of the compiled program.

    Returns:
        The metrics of all rows, in host memory; the losses are added in double precision.

    Raises:
        ConfigError: `batch_size` is less than 1.

    >>> logits = np.array([[2, 0], [0, 1]], np.float32)
    >>> measure_logits(logits, np.array([0, 0], np.int32)).summary()["accuracy"]
    0.5
    """
    mask = np.ones(len(labels), bool)
    parts = [
        jax.device_get(_jitted_metrics(*parts))
        for parts in _padded_batches(batch_size, logits, labels, mask)
    ]
    loss_sum: Any = np.sum([part.loss_sum for part in parts], dtype=np.float64)
    confusion: Any = np.sum([part.confusion for part in parts], axis=0)
    return Metrics(loss_sum, confusion)


_jitted_metrics = jax.jit(Metrics.from_logits)


def in_batches(
    function: Callable[..., jax.Array],
    *arrays: np.ndarray,
    batch_size: int = EVAL_BATCH_SIZE,
    rows: Sharding | None = None,
) -> np.ndarray:
    """Applies a row-wise function to arrays of any length, always in batches of one shape.

    Args:
        function: maps arrays [batch_size, ...] to one array [batch_size, ...], each row on its own.
        *arrays: of equal length, [N, ...]; N may be 0. The last batch is padded with zeros.
        batch_size: rows per call, at least 1.
        rows: how the rows are divided over devices; None for the default device.

    Returns:
        [N, ...], the results of `function` for the N rows.

    Raises:
        ConfigError: `batch_size` is less than 1.

    >>> import numpy as np
    >>> in_batches(lambda x: 2 * x, np.arange(5), batch_size=2).tolist()
    [0, 2, 4, 6, 8]
    """
    # All batches are dispatched before the first result is awaited.
    results = [
        function(*(put(part, rows) for part in parts))
        for parts in _padded_batches(batch_size, *arrays)
    ]
    return np.concatenate(jax.device_get(results))[: len(arrays[0])]


def _padded_batches(batch_size: int, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yields the rows of each batch; if there are no rows, one batch of zeros."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, found {batch_size}")
    for start in range(0, max(len(arrays[0]), 1), batch_size):
        parts = [array[start : start + batch_size] for array in arrays]
        missing = batch_size - len(parts[0])
        if missing:
            parts = [np.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)]) for part in parts]
        yield parts
