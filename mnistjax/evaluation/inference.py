"""What a network says of images: probabilities, in batches of one shape and one compilation."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import Dataset, DatasetInfo, load_dataset
from mnistjax.errors import ConfigError
from mnistjax.models import Model, Variables
from mnistjax.runs import TrainedModel, load_weights
from mnistjax.training import scale_pixels


def predict_probabilities(
    model: Model, variables: Variables, images: np.ndarray, *, batch_size: int = 100
) -> np.ndarray:
    """Returns the probability of every class for every image.

    Args:
        model: the network. Its program is compiled once for a batch size and image shape.
        variables: its parameters and running statistics.
        images: uint8 [N, H, W, C], 0 to 255, or float [N, H, W, C], pixels in [0, 1]. N may be 0.
        batch_size: images at a time; any gives the same probabilities, to float tolerance.

    Returns:
        float32 [N, num_classes]; each row sums to 1.

    Raises:
        ConfigError: `batch_size` is less than 1.
        ValueError: `images` are not [N, H, W, C].
    """
    program = _jitted_probabilities(model)
    return in_batches(functools.partial(program, variables), images, batch_size=batch_size)


@functools.lru_cache(maxsize=32)
def _jitted_probabilities(model: Model) -> jax.stages.Wrapped:
    def probabilities(variables: Variables, images: jax.Array) -> jax.Array:
        logits, _ = model.apply(variables, scale_pixels(jnp.asarray(images)))
        return jax.nn.softmax(logits)

    return jax.jit(probabilities)


def in_batches(
    function: Callable[..., jax.Array], *arrays: np.ndarray, batch_size: int = 100
) -> np.ndarray:
    """Applies a row-wise function to arrays of any length, always in batches of one shape.

    Args:
        function: maps arrays [batch_size, ...] to one array [batch_size, ...], each row on its own.
        *arrays: equally long, [N, ...]; N may be 0. The last batch is filled up with zeros.
        batch_size: rows at a time, >= 1.

    Returns:
        [N, ...]: what `function` gave for the N rows.

    Raises:
        ConfigError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, found {batch_size}")
    count = len(arrays[0])
    results = []
    # Without a row, one batch of filling still says the shape and dtype of what comes out.
    for start in range(0, max(count, 1), batch_size):
        rows = [array[start : start + batch_size] for array in arrays]
        missing = batch_size - len(rows[0])
        filled = [np.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)]) for part in rows]
        results.append(function(*filled))
    return np.concatenate(results)[:count]


def load_run(
    run: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[TrainedModel, Dataset]:
    """Loads the network of a run and the data set to look at it with.

    Args:
        run: the run directory, or its weights file.
        dataset: name or folder of the data set; that which the network was trained on if None.
        data_dir: folder of the data sets; see `load_dataset`.

    Raises:
        RunNotFoundError: there is no such run.
        RunError: its weights cannot be used.
        DatasetNotFoundError: the data set cannot be had.
        ConfigError: the data set has other classes, or images of another shape, than the network.
    """
    trained = load_weights(run)
    name = dataset or trained.config.dataset or trained.info.name
    data = load_dataset(name, data_dir=data_dir)
    check_same_kind(trained.info, data.info, run)
    return trained, data


def check_same_kind(
    trained_on: DatasetInfo, info: DatasetInfo, run: str | os.PathLike[str]
) -> None:
    """Checks that a data set has as many classes, and images of the shape, that a run has learned.

    Args:
        trained_on: the data set of the run.
        info: the data set in question.
        run: the run, for the message.

    Raises:
        ConfigError: it has not.
    """
    for what in ("num_classes", "image_shape"):
        expected, found = getattr(trained_on, what), getattr(info, what)
        if expected != found:
            raise ConfigError(
                f"expected a data set of {what} {expected}, as in {run}, "
                f"found {info.name} of {found}"
            )
