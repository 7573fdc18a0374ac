"""Weights on disk, in one safetensors file that also describes their network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import DatasetInfo
from mnistjax.errors import ConfigError, RunError, RunNotFoundError
from mnistjax.files import parse_json, user_path
from mnistjax.models import Model, Variables
from mnistjax.runs.build import build_model
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import RESULT, WEIGHTS, read_metrics, read_result
from mnistjax.runs.ensemble import is_ensemble
from mnistjax.runs.sealed import flatten_named, read_sealed, unflatten_named, write_sealed
from mnistjax.runs.trained import TrainedModel

FORMAT = "mnistjax-2"
# Format 1 had no digest.
_UNSEALED_FORMAT = "mnistjax-1"


def save_weights(
    path: str | os.PathLike[str],
    trained: TrainedModel,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes weights, configuration and data set description to one file, atomically.

    `load_weights` builds the network that `trained.config.model` names, so a network that you
    trained yourself needs a `config` with its name.

    Args:
        path: the file, usually `weights.safetensors`.
        trained: the network.
        metadata: more text for the metadata of the file, by name; `load_weights` ignores it.

    Raises:
        OSError: the file cannot be written.
        ConfigError: the network is an ensemble.

    >>> import tempfile, mnistjax
    >>> model, config = mnistjax.create_model("softmax"), mnistjax.get_recipe("softmax")
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> trained = TrainedModel(model, variables, DatasetInfo("my digits", 10), config)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/weights.safetensors", trained)
    ...     load_weights(folder).info.name
    'my digits'
    """
    if is_ensemble(trained.model):
        raise ConfigError("expected a network to save, found an ensemble: save its members")
    description = {
        "format": FORMAT,
        "config": trained.config.to_json(),
        "dataset": json.dumps(dataclasses.asdict(trained.info)),
    }
    write_sealed(path, flatten_named(trained.variables), {**(metadata or {}), **description})


def load_weights(path: str | os.PathLike[str]) -> TrainedModel:
    """Reads what `save_weights` wrote, and checks its digest and every array.

    Args:
        path: the file, or the run directory that holds it as `weights.safetensors`.

    Returns:
        The network, without the result and the history of its run.

    Raises:
        RunNotFoundError: the file does not exist.
        RunError: the file is damaged, of another format, or its arrays are not those of the
            network that it names, or not finite.
        ConfigError: the path cannot be used.
    """
    file = user_path(path, "run directory or a weights file")
    file = file / WEIGHTS if file.is_dir() else file
    if not file.is_file():
        raise RunNotFoundError(f"expected a run directory or a weights file, found no file {file}")
    tensors, metadata = read_sealed(file, [FORMAT], unsealed=[_UNSEALED_FORMAT])
    return build_trained(tensors, metadata, file)


def build_trained(
    tensors: Mapping[str, np.ndarray], description: Mapping[str, str], path: Path
) -> TrainedModel:
    """Builds the network that a file describes, from the arrays that it holds.

    Args:
        tensors: the arrays by their path in the variables.
        description: `config` and `dataset`, as JSON.
        path: the file, for error messages.

    Returns:
        The network, without a result and history.

    Raises:
        RunError: the description cannot be used, or the arrays are not those of the network, or
            not finite.
    """
    try:
        config = TrainConfig.from_json(description["config"])
        info = _info_from_json(description["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the description in {path} cannot be used: {error}") from error
    model = build_model(config, info.num_classes)
    return TrainedModel(model, _fit_to(model, info, tensors, path), info, config)


def load_run(run: str | os.PathLike[str]) -> TrainedModel:
    """Reads the network of a run, with its result and history if the run is finished.

    Args:
        run: the run directory, or a weights file, which has no result or history.

    Returns:
        The network, as in `fit(...).trained`.

    Raises:
        RunNotFoundError: the run does not exist.
        RunError: one of its files is damaged.
        ConfigError: the path cannot be used.
    """
    trained = load_weights(run)
    directory = user_path(run, "run directory")
    if not (directory / RESULT).is_file():
        return trained
    result, history = read_result(directory), tuple(read_metrics(directory))
    return dataclasses.replace(trained, result=result, history=history)


def _info_from_json(text: str) -> DatasetInfo:
    fields: Any = parse_json(text)
    if not isinstance(fields, dict):
        raise TypeError(f"expected a JSON object, got {type(fields).__name__}")
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return DatasetInfo(**{**fields, **tuples})


def _fit_to(
    model: Model, info: DatasetInfo, tensors: Mapping[str, np.ndarray], file: Path
) -> Variables:
    """Returns the arrays as the variables of `model`, or says which of them does not fit."""
    images = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    try:
        expected = jax.eval_shape(model.init, jax.random.key(0), images)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise RunError(
            f"{model.name!r} does not take the images {info.image_shape} that {file} describes: "
            f"{error}"
        ) from error
    try:
        variables = unflatten_named(expected, tensors, str(file))
    except RunError as error:
        raise RunError(f"weights of another network than {model.name!r}: {error}") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise RunError(f"expected finite weights, found NaN or infinity in {name} of {file}")
    return variables
