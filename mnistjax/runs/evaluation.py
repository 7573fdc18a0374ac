"""Measuring a network on every image of a split, by one compiled program for splits of any size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import Split, sequential_order
from mnistjax.models import Model, Variables
from mnistjax.training.compiler import compiler_options
from mnistjax.training.metrics import Metrics
from mnistjax.training.step import make_eval_fn, make_eval_step

EVAL_BATCH_SIZE = 500
_STEPS = 4

# Images [N, H, W, C], labels [N] and order [steps, B]; N = steps * B, the last images may be empty.
Chunk = tuple[jax.Array, jax.Array, jax.Array]


def evaluate(
    model: Model, variables: Variables, split: Split, *, batch_size: int = EVAL_BATCH_SIZE
) -> Metrics:
    """Measures a network on every image of a split, each exactly once.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        split: the images and their labels.
        batch_size: images at a time; any gives the same counts.

    Returns:
        The metrics; `.compute()` gives loss and accuracy.

    Raises:
        ConfigError: `batch_size` is less than 1.
    """
    return evaluate_chunks(jitted_evaluation(model), variables, make_chunks(split, batch_size))


def make_chunks(split: Split, batch_size: int = EVAL_BATCH_SIZE) -> list[Chunk]:
    """Cuts a split into pieces of one shape, and puts them on the device.

    A program that is compiled for the shape of a piece serves validation and test images alike.

    Args:
        split: the images and their labels.
        batch_size: images at a time; a piece is 4 batches long, the last one is filled up.

    Raises:
        ConfigError: `batch_size` is less than 1.
    """
    # Before the arithmetic: it refuses a batch size below 1.
    order = sequential_order(batch_size * _STEPS, batch_size)
    size = order.size
    chunks = []
    for start in range(0, len(split), size):
        images, labels = split.images[start : start + size], split.labels[start : start + size]
        missing = size - len(images)
        chunks.append(
            (
                jnp.asarray(np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])),
                jnp.asarray(np.pad(labels, (0, missing))),
                jnp.where(order < len(images), order, -1),
            )
        )
    return chunks


def evaluate_chunks(
    program: Callable[..., Metrics], variables: Variables, chunks: Sequence[Chunk]
) -> Metrics:
    """Returns the metrics of all pieces together; `program` is `jitted_evaluation`, or compiled."""
    return functools.reduce(Metrics.merge, [program(variables, *chunk) for chunk in chunks])


@functools.lru_cache(maxsize=32)
def jitted_evaluation(model: Model) -> jax.stages.Wrapped:
    """Returns the jitted evaluation of a model: one object a model, so nothing compiles twice."""
    return jax.jit(make_eval_fn(make_eval_step(model)), compiler_options=compiler_options())
