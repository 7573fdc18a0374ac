"""Plans a run, with all checks done before anything is compiled or written."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import DATASETS, Dataset, DatasetInfo, Split, steps_per_epoch, validation_indices
from mnistjax.errors import ConfigError
from mnistjax.models import Model, count_parameters
from mnistjax.runs.build import build_model
from mnistjax.runs.config import MAX_STEPS, TrainConfig
from mnistjax.runs.placement import Placement, choose_placement


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A run whose settings have been checked.

    Attributes:
        config: the settings.
        dataset: the data set.
        kept: sorted indices of the images to train on, among the training images of the data set.
        validation: the training images that are held out, or None.
        model: the network.
        steps_per_epoch: updates per pass over the training images.
        steps: length of the run in updates.
        parameters: number of scalars of the network, running statistics included.
        placement: the devices, and where the training images are kept.
    """

    config: TrainConfig
    dataset: Dataset
    kept: np.ndarray
    validation: Split | None
    model: Model
    steps_per_epoch: int
    steps: int
    parameters: int
    placement: Placement

    @functools.cached_property
    def train(self) -> Split:
        """The images to train on, copied to memory unless they are all of the data set."""
        split = self.dataset.train
        if len(self.kept) == len(split):
            return split
        return Split(split.images[self.kept], split.labels[self.kept])


def make_plan(
    config: TrainConfig,
    dataset: Dataset,
    *,
    devices: int | str | None = None,
    images: str = "auto",
) -> Plan:
    """Plans a run, and checks its settings against the data set.

    Args:
        config: the settings.
        dataset: the data set.
        devices: number of devices, as for `choose_placement`.
        images: where the training images are kept, as for `choose_placement`.

    Raises:
        ConfigError: a setting does not fit this data set, or there are fewer devices.
        UnknownNameError: `images` is not a name of a place.
    """
    info = dataset.info
    if config.dataset in DATASETS and config.dataset != info.name:
        raise ConfigError(f"the settings name data set {config.dataset!r}, found {info.name!r}")
    kept, validation = _hold_out(dataset.train, config)
    per_epoch = steps_per_epoch(len(kept), config.batch_size)
    steps = config.num_steps(per_epoch)
    if steps > MAX_STEPS:
        raise ConfigError(f"expected at most {MAX_STEPS} steps, found {steps}")
    model = build_model(config, info.num_classes)
    parameters = _count_parameters(model, info, config)
    placement = choose_placement(dataset.train, devices=devices, images=images)
    return Plan(config, dataset, kept, validation, model, per_epoch, steps, parameters, placement)


def _hold_out(split: Split, config: TrainConfig) -> tuple[np.ndarray, Split | None]:
    """Returns the indices of the images to train on, and the images to validate on."""
    sides = validation_indices(
        split.labels, config.validation_fraction, seed=config.validation_seed
    )
    if sides is None:
        return np.arange(len(split)), None
    kept, held_out = sides
    return kept, Split(split.images[held_out], split.labels[held_out])


def _count_parameters(model: Model, info: DatasetInfo, config: TrainConfig) -> int:
    images = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
    except (ArithmeticError, ValueError) as error:
        raise ConfigError(
            f"model {model.name!r} does not fit images of shape {info.image_shape}, as those of "
            f"{info.name!r}: {error}"
        ) from error
    if config.microbatch_size is not None and jax.tree.leaves(variables["batch_stats"]):
        raise ConfigError(
            f"expected no microbatch_size for {model.name!r}, whose batch normalization is over "
            f"whole batches, found {config.microbatch_size}"
        )
    return count_parameters(variables)
