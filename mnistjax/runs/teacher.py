"""Reads the teacher of a run from disk."""

from __future__ import annotations

import os

from mnistjax.files import user_path
from mnistjax.runs.population import load_population
from mnistjax.runs.population_files import POPULATION
from mnistjax.runs.trained import TrainedModel
from mnistjax.runs.weights import load_run


def load_teacher(path: str | os.PathLike[str]) -> TrainedModel:
    """Reads the network of a run, or the soft vote of a population.

    Args:
        path: the directory of a run or of a finished population, or a weights file.

    Returns:
        The network, for example as `teacher` for `fit`.

    Raises:
        RunNotFoundError: there is neither.
        RunError: it is not finished, or damaged.
        ConfigError: the path cannot be used, or the training of all members failed.
    """
    if (user_path(path, "teacher") / POPULATION).is_file():
        return load_population(path).ensemble()
    return load_run(path)
