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
from mnistjax.runs.fingerprints import teacher_fingerprint
from mnistjax.runs.placement import Placement, choose_placement
from mnistjax.runs.trained import TrainedModel, check_same_kind


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
        teacher: the network that teaches this one, or None.
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
    teacher: TrainedModel | None = None

    @functools.cached_property
    def train(self) -> Split:
        """The images to train on, copied to memory unless they are all of the data set."""
        split = self.dataset.train
        if len(self.kept) == len(split):
            return split
        return Split(split.images[self.kept], split.labels[self.kept])

    @functools.cached_property
    def teacher_sha256(self) -> str | None:
        """The fingerprint of the weights of the teacher; None without a teacher."""
        return teacher_fingerprint(self.teacher)


def make_plan(
    config: TrainConfig,
    dataset: Dataset,
    *,
    devices: int | str | None = None,
    images: str = "auto",
    teacher: TrainedModel | None = None,
) -> Plan:
    """Plans a run, and checks its settings against the data set.

    Args:
        config: the settings.
        dataset: the data set.
        devices: number of devices, as for `choose_placement`.
        images: where the training images are kept, as for `choose_placement`.
        teacher: a network that teaches this one, or None.

    Raises:
        ConfigError: a setting or the teacher does not fit this data set, or there are fewer
            devices.
        UnknownNameError: `images` is not a name of a place.
    """
    info = dataset.info
    if config.dataset in DATASETS and config.dataset != info.name:
        raise ConfigError(f"the settings name data set {config.dataset!r}, found {info.name!r}")
    if teacher is not None:
        _check_teacher(teacher, info)
    kept, validation = _hold_out(dataset.train, config)
    per_epoch = steps_per_epoch(len(kept), config.batch_size)
    steps = config.num_steps(per_epoch)
    if steps > MAX_STEPS:
        raise ConfigError(f"expected at most {MAX_STEPS} steps, found {steps}")
    model = build_model(config, info.num_classes)
    parameters = _count_parameters(model, info, config)
    placement = choose_placement(dataset.train, devices=devices, images=images)
    return Plan(
        *(config, dataset, kept, validation, model, per_epoch, steps, parameters, placement),
        teacher=teacher,
    )


def _check_teacher(teacher: TrainedModel, info: DatasetInfo) -> None:
    try:
        check_same_kind(teacher, info)
    except ConfigError as error:
        raise ConfigError(f"the teacher does not fit the data set: {error}") from error


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
