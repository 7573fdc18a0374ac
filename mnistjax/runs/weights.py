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

from mnistjax.atomic import atomic_path
from mnistjax.data import DatasetInfo
from mnistjax.errors import RunError, RunNotFoundError
from mnistjax.models import Model, Variables
from mnistjax.runs.build import build_model
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import RESULT, WEIGHTS, read_metrics, read_result
from mnistjax.runs.trained import TrainedModel

_FORMAT = "mnistjax-1"


def save_weights(path: str | os.PathLike[str], trained: TrainedModel) -> None:
    """Writes weights, configuration and data set description to one file, atomically.

    `load_weights` builds the network that `trained.config.model` names, so a network that you
    trained yourself needs a `config` with its name.

    Args:
        path: the file, usually `weights.safetensors`.
        trained: the network.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile, mnistjax
    >>> model, config = mnistjax.create_model("softmax"), mnistjax.get_recipe("softmax")
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> trained = TrainedModel(model, variables, DatasetInfo("my digits", 10), config)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/weights.safetensors", trained)
    ...     load_weights(folder).info.name
    'my digits'
    """
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_flatten_with_path(trained.variables)[0]
    tensors = {_name(key_path): np.asarray(leaf) for key_path, leaf in leaves}
    metadata = {
        "format": _FORMAT,
        "config": trained.config.to_json(),
        "dataset": json.dumps(dataclasses.asdict(trained.info)),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def load_weights(path: str | os.PathLike[str]) -> TrainedModel:
    """Reads what `save_weights` wrote, and checks every array against the network.

    Args:
        path: the file, or the run directory that holds it as `weights.safetensors`.

    Returns:
        The network, without the result and the history of its run.

    Raises:
        RunNotFoundError: the file does not exist.
        RunError: the file is damaged, of another format, or its arrays are not those of the
            network that it names.
    """
    file = Path(path)
    file = file / WEIGHTS if file.is_dir() else file
    if not file.is_file():
        raise RunNotFoundError(f"expected a run directory or a weights file, found no file {file}")
    tensors, metadata = _read(file)
    if metadata.get("format") != _FORMAT:
        found = metadata.get("format", "no format at all")
        raise RunError(f"expected weights of format {_FORMAT}, found {found}, in {file}")
    try:
        config = TrainConfig.from_json(metadata["config"])
        info = _info_from_json(metadata["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the description in {file} cannot be used: {error}") from error
    model = build_model(config, info.num_classes)
    return TrainedModel(model, _fit_to(model, info, tensors, file), info, config)


def load_run(run: str | os.PathLike[str]) -> TrainedModel:
    """Reads the network of a run, with its result and history if the run is finished.

    Args:
        run: the run directory, or a weights file, which has no result or history.

    Returns:
        The network, as in `fit(...).trained`.

    Raises:
        RunNotFoundError: the run does not exist.
        RunError: one of its files is damaged.
    """
    trained = load_weights(run)
    directory = Path(run)
    if not (directory / RESULT).is_file():
        return trained
    result, history = read_result(directory), tuple(read_metrics(directory))
    return dataclasses.replace(trained, result=result, history=history)


def _read(file: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            # A file of another format may hold dtypes that NumPy lacks, so its arrays are not read.
            names = opened.keys() if metadata.get("format") == _FORMAT else []
            return {name: opened.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError, AttributeError, TypeError) as error:
        raise RunError(f"expected a safetensors file, found {file}: {error}") from error


def _info_from_json(text: str) -> DatasetInfo:
    fields: Any = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError(f"expected a JSON object, got {type(fields).__name__}")
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return DatasetInfo(**{**fields, **tuples})


def _fit_to(
    model: Model, info: DatasetInfo, tensors: dict[str, np.ndarray], file: Path
) -> Variables:
    """Returns the arrays as the variables of `model`, or says which of them does not fit."""
    images = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    expected = jax.eval_shape(model.init, jax.random.key(0), images)
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    names = [_name(key_path) for key_path, _ in leaves]
    for name in sorted(set(names) ^ set(tensors)):
        words = "lacks" if name in names else "has an unexpected"
        raise RunError(
            f"weights of another network: {model.name!r} expected, {file} {words} {name}"
        )
    for name, (_, leaf) in zip(names, leaves, strict=True):
        found = tensors[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise RunError(
                f"weights of another network: {model.name!r} expects {name} as {leaf.dtype} "
                f"{leaf.shape}, found {found.dtype} {found.shape} in {file}"
            )
    return jax.tree.unflatten(structure, [jnp.asarray(tensors[name]) for name in names])


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
