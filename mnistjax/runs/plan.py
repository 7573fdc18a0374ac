"""Plans a run, with all checks done before anything is compiled or written."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mnistjax.data import DATASETS, Dataset, DatasetInfo, Split, split_validation, steps_per_epoch
from mnistjax.errors import ConfigError
from mnistjax.models import Model, count_parameters
from mnistjax.runs.build import build_model
from mnistjax.runs.config import MAX_STEPS, TrainConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A run whose settings have been checked.

    Attributes:
        config: the settings.
        dataset: the data set.
        train: the images to train on.
        validation: the training images that are held out, or None.
        model: the network.
        steps_per_epoch: updates per pass over the training images.
        steps: length of the run in updates.
        parameters: number of scalars of the network, running statistics included.
    """

    config: TrainConfig
    dataset: Dataset
    train: Split
    validation: Split | None
    model: Model
    steps_per_epoch: int
    steps: int
    parameters: int


def make_plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """Plans a run, and checks its settings against the data set.

    Args:
        config: the settings.
        dataset: the data set.

    Raises:
        ConfigError: a setting does not fit this data set.
    """
    info = dataset.info
    if config.dataset in DATASETS and config.dataset != info.name:
        raise ConfigError(f"the settings name data set {config.dataset!r}, found {info.name!r}")
    train, validation = split_validation(
        dataset.train, config.validation_fraction, seed=config.validation_seed
    )
    per_epoch = steps_per_epoch(len(train), config.batch_size)
    steps = config.num_steps(per_epoch)
    if steps > MAX_STEPS:
        raise ConfigError(f"expected at most {MAX_STEPS} steps, found {steps}")
    model = build_model(config, info.num_classes)
    parameters = _count_parameters(model, info)
    return Plan(config, dataset, train, validation, model, per_epoch, steps, parameters)


def _count_parameters(model: Model, info: DatasetInfo) -> int:
    images = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    try:
        return count_parameters(jax.eval_shape(model.init, jax.random.key(0), images))
    except (ArithmeticError, ValueError) as error:
        raise ConfigError(
            f"model {model.name!r} does not fit images of shape {info.image_shape}, as those of "
            f"{info.name!r}: {error}"
        ) from error
