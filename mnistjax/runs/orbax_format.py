"""Exchange with programs that read and write Orbax checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnistjax.errors import ConfigError, RunError, RunNotFoundError
from mnistjax.files import user_path
from mnistjax.models import Variables
from mnistjax.runs.ensemble import is_ensemble
from mnistjax.runs.sealed import flatten_named
from mnistjax.runs.trained import TrainedModel
from mnistjax.runs.weights import build_trained

# The items of the checkpoint.
_VARIABLES = "variables"
_DESCRIPTION = "description"


def export_orbax(trained: TrainedModel, folder: str | os.PathLike[str]) -> Path:
    """Writes a network as an Orbax checkpoint.

    The checkpoint has two items: `variables`, the tree of arrays, and `description`, a JSON object
    with the settings, the data set, and the result and history of a finished run. Orbax stores no
    digests, so a changed bit may stay unnoticed: `save_weights` is the format for keeping.

    Args:
        trained: the network.
        folder: the folder to create.

    Returns:
        The folder.

    Raises:
        RunError: the folder exists or cannot be written.
        ConfigError: the network is an ensemble, or the path cannot be used.

    >>> import tempfile, mnistjax
    >>> config = mnistjax.get_recipe("softmax").replace(steps=1)
    >>> trained = mnistjax.fit(config, mnistjax.load_dataset("digits")).trained
    >>> with tempfile.TemporaryDirectory() as place:
    ...     import_orbax(export_orbax(trained, f"{place}/exported")).model.name
    'softmax'
    """
    import orbax.checkpoint as ocp

    if is_ensemble(trained.model):
        raise ConfigError("expected a network to export, found an ensemble: export its members")
    target = user_path(folder, "folder").absolute()
    if target.exists():
        raise RunError(f"expected a folder to create, found {target}")
    description = {
        "config": json.loads(trained.config.to_json()),
        "dataset": dataclasses.asdict(trained.info),
        "result": trained.result and dict(trained.result),
        "history": list(trained.history),
    }
    items = ocp.args.Composite(
        **{
            _VARIABLES: ocp.args.StandardSave(trained.variables),
            _DESCRIPTION: ocp.args.JsonSave(description),
        }
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(target, args=items)
    except (OSError, ValueError) as error:
        raise RunError(f"expected to write an Orbax checkpoint to {target}: {error}") from error
    return target


def import_orbax(folder: str | os.PathLike[str]) -> TrainedModel:
    """Reads what `export_orbax` wrote, and checks every array against the network.

    Args:
        folder: the folder of the checkpoint.

    Returns:
        The network, with the result and history of its run if they were exported.

    Raises:
        RunNotFoundError: the folder does not exist.
        RunError: it holds no such checkpoint, or its arrays are not those of the network that it
            describes, or not finite.
        ConfigError: the path cannot be used.
    """
    place = user_path(folder, "Orbax checkpoint").absolute()
    if not place.is_dir():
        raise RunNotFoundError(f"expected an Orbax checkpoint, found no folder {place}")
    try:
        variables, description = _restore(place)
        texts = {name: json.dumps(description[name]) for name in ("config", "dataset")}
        result, history = description["result"], tuple(description["history"])
    except Exception as error:  # For some damaged files Orbax raises a bare Exception.
        raise RunError(f"expected an Orbax checkpoint in {place}: {error}") from error
    trained = build_trained(flatten_named(variables), texts, place)
    return dataclasses.replace(trained, result=result, history=history)


def _restore(place: Path) -> tuple[Variables, Mapping[str, Any]]:
    import orbax.checkpoint as ocp

    # Without a target: Orbax would cast the arrays to its dtypes.
    items = ocp.args.Composite(
        **{_VARIABLES: ocp.args.StandardRestore(), _DESCRIPTION: ocp.args.JsonRestore()}
    )
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(place, args=items)
    return restored[_VARIABLES], restored[_DESCRIPTION]
