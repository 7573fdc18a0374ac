"""Checks that an exported file computes what its network computes."""

from __future__ import annotations

import contextlib
import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.data import Split, check_labels
from mnistjax.errors import MnistjaxError, RunError
from mnistjax.export.loading import load_program
from mnistjax.export.writing import PROBABILITIES
from mnistjax.runs import TrainedModel, predict_logits
from mnistjax.training import scale_pixels


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """How much the outputs of an exported file differ from those of its network.

    Attributes:
        count: number of images.
        output: what was compared, "logits" or "probabilities".
        difference: the largest absolute difference.
        tolerance: the largest difference that rounding in float32 explains; None for a network that
            computes in bfloat16, of which two programs round differently.
        accuracy: accuracy of the network, from 0 to 1.
        exported_accuracy: accuracy of the file.
    """

    count: int
    output: str
    difference: float
    tolerance: float | None
    accuracy: float
    exported_accuracy: float

    @property
    def passed(self) -> bool:
        """Whether the difference is at most the tolerance, or finite where there is none."""
        limit = float(np.finfo(np.float32).max) if self.tolerance is None else self.tolerance
        return self.difference <= limit  # False for NaN.


def check_export(path: str | os.PathLike[str], trained: TrainedModel, split: Split) -> ExportCheck:
    """Compares what an exported file computes with its network, on every image of a split.

    A StableHLO program runs in JAX and an ONNX graph in onnxruntime, on the CPU. The weights in
    safetensors and Orbax files are loaded, and run as the network that their file describes.

    Args:
        path: the file or, of Orbax, the folder.
        trained: the network that was exported.
        split: images and labels.

    Returns:
        The differences.

    Raises:
        RunNotFoundError: there is no such file.
        RunError: it is not an exported file, is damaged, or takes other images.
        DataFormatError: the images are not those that the network takes.
        ConfigError: it is an ONNX file and onnxruntime is not installed, or the path cannot be
            used.
    """
    check_labels(split.labels, trained.info.num_classes)
    program = load_program(path)
    # A GPU computes with fewer bits than float32 has unless it is told otherwise, in the network
    # and in its StableHLO program alike.
    exact = jax.default_matmul_precision("highest")
    with exact if program.kind == "onnx" else contextlib.nullcontext():
        expected = predict_logits(trained, split.images)
    # A larger number has a larger rounding error.
    tolerance = 1e-5 * max(10, float(np.abs(expected).max()))
    if program.output == PROBABILITIES:
        expected = np.asarray(jax.nn.softmax(expected))
    images = split.images
    if program.input_dtype == "float32":
        images = np.asarray(scale_pixels(images))
    try:
        found = program.run(images)
    except MnistjaxError:
        raise
    except Exception as error:  # Each library has its own.
        raise RunError(f"{path} does not take the images of the network: {error}") from error
    if found.shape != expected.shape:
        raise RunError(f"expected outputs {expected.shape} of {path}, found {found.shape}")
    return ExportCheck(
        count=len(expected),
        output=program.output,
        difference=float(np.abs(found - expected).max()),
        tolerance=None if _is_half_precision(trained) else tolerance,
        accuracy=_accuracy(expected, split.labels),
        exported_accuracy=_accuracy(found, split.labels),
    )


def _is_half_precision(trained: TrainedModel) -> bool:
    dtype = getattr(trained.model.module, "dtype", trained.config.dtype)
    return jnp.dtype(dtype) != jnp.float32


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(1) == labels))
