"""A trained network, which `fit` returns and prediction and evaluation take."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.data import Dataset, DatasetInfo, Split, check_labels, load_dataset
from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.models import Model, Variables
from mnistjax.runs.config import TrainConfig
from mnistjax.training import EVAL_BATCH_SIZE, Metrics, TrainState, measure_logits
from mnistjax.training import predict_logits as run_network


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with its weights and the record of its training.

    `fit(...).trained` is one, and `load_run` and `load_weights` return one. For a network that you
    trained yourself, `TrainedModel(model, state.variables, dataset.info)` is enough.

    Attributes:
        model: the network.
        variables: its parameters and running statistics.
        info: the data set that it was trained on.
        config: the settings that it was trained with.
        result: the content of `result.json`; None if the run is unknown or not finished.
        history: the rows of `metrics.jsonl`, one per epoch; empty if they are unknown.
    """

    model: Model
    variables: Variables
    info: DatasetInfo
    config: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    result: Mapping[str, Any] | None = None
    history: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class FitResult:
    """The result of `fit`.

    Attributes:
        trained: the network that was evaluated on the test images, to pass to `predict`,
            `evaluate`, `analyze`, `write_report` and similar functions.
        state: the state after the last update; with early stopping, that of the best epoch.
        dataset: the data set of the run.
        workdir: the run directory, or None if nothing was written.
    """

    trained: TrainedModel
    state: TrainState
    dataset: Dataset
    workdir: Path | None

    @property
    def model(self) -> Model:
        """The network; `model.apply(trained.variables, images)` gives logits."""
        return self.trained.model

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """One row of metrics per epoch, as in `metrics.jsonl`."""
        return list(self.trained.history)

    @property
    def result(self) -> Mapping[str, Any]:
        """The content of `result.json`."""
        assert self.trained.result is not None
        return self.trained.result


def predict_logits(
    trained: TrainedModel, images: np.ndarray, *, batch_size: int = EVAL_BATCH_SIZE
) -> np.ndarray:
    """Computes the logits of every image.

    Args:
        trained: the network.
        images: uint8 [N, H, W, C], 0 to 255, or float [N, H, W, C] with pixels in [0, 1], of the
            shape that the network was trained on; N may be 0.
        batch_size: images per call of the compiled program; it affects the logits only by rounding.

    Returns:
        float32 [N, num_classes]; `jax.nn.softmax(logits)` gives the probabilities.

    Raises:
        DataFormatError: the images are of another shape, floats outside [0, 1], or masked.
        TypeError: the dtype is neither uint8, bool nor floating point.
        ConfigError: `batch_size` is less than 1.
    """
    if isinstance(images, np.ma.MaskedArray):
        raise DataFormatError("expected an array of images, found a masked array")
    images = np.asarray(images)
    expected = tuple(trained.info.image_shape)
    if images.shape[1:] != expected:
        raise DataFormatError(
            f"expected images [N, {', '.join(map(str, expected))}], found {list(images.shape)}"
        )
    if np.issubdtype(images.dtype, np.floating) and images.size:
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise DataFormatError(f"expected pixels from 0 to 1, found {low:g} to {high:g}")
    return run_network(trained.model, trained.variables, images, batch_size=batch_size)


def evaluate(trained: TrainedModel, split: Split, *, batch_size: int = EVAL_BATCH_SIZE) -> Metrics:
    """Evaluates a network on every image of a split, each exactly once.

    Args:
        trained: the network.
        split: the images and their labels.
        batch_size: images per call of the compiled program; it affects the loss only by rounding.

    Returns:
        The metrics; `.summary()` gives loss and accuracy.

    Raises:
        DataFormatError: the images are of another shape, or a label is out of range.
        ConfigError: `batch_size` is less than 1.

    >>> import jax, mnistjax
    >>> dataset, model = mnistjax.load_dataset("digits"), mnistjax.create_model("softmax")
    >>> images = mnistjax.scale_pixels(dataset.test.images[:1])
    >>> untrained = TrainedModel(model, model.init(jax.random.key(0), images), dataset.info)
    >>> int(evaluate(untrained, dataset.test).count)
    360
    """
    check_labels(split.labels, trained.info.num_classes)
    logits = predict_logits(trained, split.images, batch_size=batch_size)
    return measure_logits(logits, split.labels, batch_size=batch_size)


def load_run_dataset(
    trained: TrainedModel,
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads the data set that a network was trained on, or another one of the same kind.

    Args:
        trained: the network.
        dataset: name or folder of the data set; if None, the one that the network was trained on.
        data_dir: folder of the data sets; see `load_dataset`.

    Returns:
        The data set.

    Raises:
        DatasetNotFoundError: the data set is not available.
        ConfigError: it has other classes, or images of another shape, than the network.
    """
    loaded = load_dataset(dataset or trained.config.dataset or trained.info.name, data_dir=data_dir)
    check_same_kind(trained, loaded.info)
    return loaded


def check_same_kind(trained: TrainedModel, info: DatasetInfo) -> None:
    """Checks that a data set has the image shape and number of classes of a network.

    Args:
        trained: the network.
        info: the data set in question.

    Raises:
        ConfigError: the image shape or the number of classes differs.
    """
    for what in ("num_classes", "image_shape"):
        expected, found = getattr(trained.info, what), getattr(info, what)
        if expected != found:
            raise ConfigError(
                f"expected a data set of {what} {expected}, as {trained.info.name}, "
                f"found {info.name} of {found}"
            )
