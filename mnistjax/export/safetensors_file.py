"""Safetensors: the weights alone, by name, for any program that builds the network itself."""

from __future__ import annotations

import os
from pathlib import Path

from mnistjax.export.origin import ORIGIN, origin_json
from mnistjax.export.writing import writing_file
from mnistjax.runs import TrainedModel, save_weights


def write_safetensors(trained: TrainedModel, path: str | os.PathLike[str]) -> Path:
    """Writes the weights of a network as a safetensors file that records their origin.

    It is the file of `save_weights`, which `load_weights` reads, with one more entry in its
    metadata: `origin`, JSON as of `describe_origin`. `safetensors.numpy.load_file(path)` reads the
    arrays, by their path in the variables, for example `params/Dense_0/kernel`.

    Args:
        trained: the network.
        path: the file; it is replaced if it exists.

    Returns:
        The file.

    Raises:
        ConfigError: the network is an ensemble, or the path cannot be used.
        RunError: the file cannot be written.
    """
    with writing_file(path, "safetensors") as (target, temporary):
        save_weights(temporary, trained, metadata={ORIGIN: origin_json(trained)})
    return target
