"""The origin of a network: where it comes from, as every exported file records it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from mnistjax.models import count_parameters
from mnistjax.runs import TrainedModel, package_versions
from mnistjax.runs.ensemble import is_ensemble

# The key of the origin in the metadata of a file, and the stem of its name in an archive.
ORIGIN = "origin"
# Not all of `result.json`: `source` may name a folder of the user, and times say nothing about the
# network.
_RESULT_KEYS = (
    *("dataset_sha256", "teacher", "teacher_sha256", "seed", "train_count", "validation_count"),
    *("test_count", "epochs", "steps", "train_accuracy", "validation_accuracy", "test_accuracy"),
    *("test_loss", "device", "versions"),
)


def describe_origin(trained: TrainedModel) -> dict[str, Any]:
    """Describes where a network comes from.

    Args:
        trained: the network.

    Returns:
        What JSON can hold: `model` and `recipe` (names), `parameters` (their number), `config` (the
        settings of `TrainConfig`; None for an ensemble), `dataset` (the fields of `DatasetInfo`),
        `result` (accuracies, digest of the data set and versions, from `result.json`; None if the
        run is unknown or not finished), and `exported_with` (the versions of Python and of the
        packages that are installed now).

    >>> import jax, mnistjax
    >>> model, info = mnistjax.create_model("softmax"), mnistjax.DatasetInfo("my digits", 10)
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
    >>> origin = describe_origin(mnistjax.TrainedModel(model, variables, info))
    >>> origin["model"], origin["parameters"], origin["dataset"]["name"]
    ('softmax', 7850, 'my digits')
    """
    # The settings of an ensemble are those of its first member alone.
    config = None if is_ensemble(trained.model) else trained.config
    result = trained.result
    return {
        "model": trained.model.name,
        "recipe": config.recipe if config else None,
        "parameters": count_parameters(trained.variables),
        "config": json.loads(config.to_json()) if config else None,
        "dataset": dataclasses.asdict(trained.info),
        "result": result and {name: result[name] for name in _RESULT_KEYS if name in result},
        "exported_with": package_versions(),
    }


def origin_json(trained: TrainedModel) -> str:
    """Returns the origin of a network as JSON text."""
    return json.dumps(describe_origin(trained), indent=1)
