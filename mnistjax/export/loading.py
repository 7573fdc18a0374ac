"""Reads exported files again: the functions that they hold, and where their network comes from."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from mnistjax.errors import ConfigError, MnistjaxError, RunError, RunNotFoundError
from mnistjax.export.origin import ORIGIN
from mnistjax.export.stablehlo import ORIGIN_MEMBER
from mnistjax.export.writing import LOGITS
from mnistjax.files import MAX_JSON_BYTES, parse_json, user_path
from mnistjax.runs import import_orbax, load_weights, predict_logits
from mnistjax.runs.sealed import read_sealed
from mnistjax.runs.weights import FORMAT
from mnistjax.training import EVAL_BATCH_SIZE, in_batches


class Program(NamedTuple):
    """The function of an exported file.

    Attributes:
        run: maps images [N, H, W, C] to float32 [N, num_classes].
        kind: the kind of the file: "stablehlo", "onnx", "orbax" or "safetensors".
        input_dtype: dtype of the images.
        output: "logits" or "probabilities".
    """

    run: Callable[[np.ndarray], np.ndarray]
    kind: str
    input_dtype: str = "uint8"
    output: str = LOGITS


def load_program(path: str | os.PathLike[str]) -> Program:
    """Loads an exported file to run it.

    Args:
        path: the file or, of Orbax, the folder.

    Returns:
        The function. Weights of safetensors and Orbax run as the network that they describe.

    Raises:
        RunNotFoundError: there is no such file.
        RunError: it is not an exported file, or damaged.
        ConfigError: it is an ONNX file and onnxruntime is not installed, or the path cannot be
            used.
    """
    place, kind = _find(path)
    if kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError(
            "running ONNX files needs the package onnxruntime, found none: "
            "pip install 'mnistjax[onnx]'"
        )
    with reading_file(place):
        if kind == "stablehlo":
            return _load_stablehlo(place)
        if kind == "onnx":
            return _load_onnx(place)
        trained = import_orbax(place) if kind == "orbax" else load_weights(place)
        return Program(functools.partial(predict_logits, trained), kind)


def read_origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads where the network of an exported file comes from.

    Args:
        path: a file of `write_stablehlo`, `write_onnx` or `write_safetensors`, or a folder of
            `export_orbax`.

    Returns:
        What `describe_origin` returned when the file was written. For a folder of Orbax, which
        describes its network in another way, the fields `config`, `dataset`, `result` and
        `history`.

    Raises:
        RunNotFoundError: there is no such file.
        RunError: it is not an exported file, or damaged.
        ConfigError: it is an ONNX file and the package onnx is not installed, or the path cannot be
            used.
    """
    place, kind = _find(path)
    if kind == "onnx" and importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "reading ONNX files needs the package onnx, found none: pip install 'mnistjax[onnx]'"
        )
    with reading_file(place):
        return parse_json(_ORIGIN_READERS[kind](place))


@contextlib.contextmanager
def reading_file(place: Path) -> Iterator[None]:
    """Converts the errors of the libraries that read exported files.

    Raises:
        RunError: one of them was raised.
    """
    try:
        yield
    except MnistjaxError:
        raise
    except Exception as error:  # Each library has its own, and some raise a bare Exception.
        raise RunError(f"expected an exported file, found {place}: {error}") from error


def _find(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Returns the path of an exported file, and its kind."""
    place = user_path(path, "file that was exported")
    if place.is_dir():
        return place, "orbax"
    try:
        with open(place, "rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise RunNotFoundError(f"expected an exported file, found no file {place}") from error
    except OSError as error:
        raise RunError(f"expected an exported file, found {place}: {error}") from error
    if zipfile.is_zipfile(place):
        return place, "stablehlo"
    # The JSON header of a safetensors file follows its length; an ONNX file starts with the tag of
    # its version.
    if start[8:] == b"{":
        return place, "safetensors"
    if start[:1] == b"\x08":
        return place, "onnx"
    raise RunError(f"expected an exported file, found {place} of another format")


def _load_stablehlo(place: Path) -> Program:
    exported = jax.export.deserialize(bytearray(place.read_bytes()))
    run = functools.partial(in_batches, jax.jit(exported.call))
    return Program(run, "stablehlo", str(exported.in_avals[0].dtype), exported.fun_name)


def _load_onnx(place: Path) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # By default it starts a thread for each core of the machine, even if this process has fewer.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        place.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    (images,), (output,) = session.get_inputs(), session.get_outputs()

    def run(batch: np.ndarray) -> np.ndarray:
        starts = range(0, max(len(batch), 1), EVAL_BATCH_SIZE)
        parts = [batch[start : start + EVAL_BATCH_SIZE] for start in starts]
        return np.concatenate([session.run(None, {images.name: part})[0] for part in parts])

    input_dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}[images.type]
    return Program(run, "onnx", input_dtype, output.name)


def _stablehlo_origin(place: Path) -> bytes:
    with zipfile.ZipFile(place) as archive, archive.open(ORIGIN_MEMBER) as file:
        return file.read(MAX_JSON_BYTES)  # A small file may unpack to a large one.


def _onnx_origin(place: Path) -> str:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(place).metadata_props}[ORIGIN]


def _safetensors_origin(place: Path) -> str:
    return read_sealed(place, [FORMAT])[1][ORIGIN]


def _orbax_origin(place: Path) -> bytes:
    return (place / "description" / "metadata").read_bytes()


_ORIGIN_READERS: dict[str, Callable[[Path], str | bytes]] = {
    "stablehlo": _stablehlo_origin,
    "onnx": _onnx_origin,
    "safetensors": _safetensors_origin,
    "orbax": _orbax_origin,
}
