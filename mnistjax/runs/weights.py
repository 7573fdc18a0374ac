"""Weights on disk: one safetensors file that also says what network they belong to."""

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
from mnistjax.runs.directory import WEIGHTS

_FORMAT = "mnistjax-1"


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, as read from disk.

    Attributes:
        model: the network.
        variables: its parameters and running statistics.
        config: the settings that it was trained with.
        info: the data set that it was trained on.
    """

    model: Model
    variables: Variables
    config: TrainConfig
    info: DatasetInfo


def save_weights(
    path: str | os.PathLike[str], variables: Variables, config: TrainConfig, info: DatasetInfo
) -> None:
    """Writes weights, configuration and data set description to one file, whole or not at all.

    Args:
        path: the file, by custom `weights.safetensors`.
        variables: what `TrainState.variables` gives.
        config: the settings of the run.
        info: the data set of the run.
    """
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    tensors = {_name(key_path): np.asarray(leaf) for key_path, leaf in leaves}
    metadata = {
        "format": _FORMAT,
        "config": config.to_json(),
        "dataset": json.dumps(dataclasses.asdict(info)),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def load_weights(path: str | os.PathLike[str]) -> TrainedModel:
    """Reads what `save_weights` wrote, and checks every array against the network.

    Args:
        path: the file, or the run directory that holds it as `weights.safetensors`.

    Raises:
        RunNotFoundError: there is no such file.
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
    model = build_model(config, info)
    return TrainedModel(model, _fit_to(model, info, tensors, file), config, info)


def _read(file: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            # A file of another origin may hold dtypes that numpy lacks: it is refused unread.
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
