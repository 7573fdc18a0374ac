"""The command that writes a network for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

import mnistjax
from mnistjax.cli.shell import one_line
from mnistjax.errors import ConfigError, MnistjaxError, RunError
from mnistjax.files import user_path
from mnistjax.runs import TrainedModel
from mnistjax.runs.directory import CONFIG, METRICS, RESULT, WEIGHTS
from mnistjax.runs.population_files import POPULATION

_NAMES = {
    "stablehlo": "network.stablehlo",
    "onnx": "network.onnx",
    "orbax": "orbax",
    "safetensors": "network.safetensors",
}


def export(
    run: Annotated[Path, tyro.conf.Positional],
    to: Literal["stablehlo", "onnx", "orbax", "safetensors"],
    output: Path | None = None,
    input_dtype: Literal["uint8", "float32"] = "uint8",
    probabilities: bool = False,
    check: bool = True,
    data_dir: Path | None = None,
) -> None:
    """Write a network for other programs, and compare what was written on all test images.

    stablehlo is a program for JAX alone, of any network or ensemble; onnx a graph for ONNX Runtime
    and many others (pip install 'mnistjax[onnx]'); orbax and safetensors are the weights alone.

    Args:
        run: Directory of a run or, for stablehlo, of a sweep, whose networks vote; or a weights
            file.
        to: Format.
        output: File to write or replace, or for orbax the folder to create; if not given,
            network.stablehlo, network.onnx, network.safetensors or orbax in the directory.
        input_dtype: Input of stablehlo and onnx: uint8 for images from 0 to 255, float32 for pixels
            in [0, 1].
        probabilities: Let stablehlo and onnx return probabilities instead of logits.
        check: Leave out the comparison on the test images.
        data_dir: Folder of the data sets, for the comparison; if not given, MNISTJAX_DATA_DIR, or
            the folder that TensorFlow Datasets uses.
    """
    chosen = {"input_dtype": input_dtype, "probabilities": probabilities}
    if to in ("orbax", "safetensors"):
        if chosen != {"input_dtype": "uint8", "probabilities": False}:
            raise ConfigError("--input-dtype and --probabilities need --to stablehlo or --to onnx")
        chosen = {}
    place = user_path(run, "run")
    if (place / POPULATION).is_file():
        trained = mnistjax.runs.load_population(place).ensemble()
    else:
        trained = mnistjax.load_run(place)
    folder = place if place.is_dir() else place.parent
    target = folder / _NAMES[to] if output is None else user_path(output, "file")
    if target.exists() and any(target.samefile(file) for file in _read_files(place)):
        raise ConfigError(f"expected another file than the network's own, found {target}")
    writers: dict[str, Callable[..., Path]] = {
        "stablehlo": mnistjax.export.write_stablehlo,
        "onnx": mnistjax.export.write_onnx,
        "orbax": mnistjax.runs.export_orbax,
        "safetensors": mnistjax.export.write_safetensors,
    }
    written = writers[to](trained, target, **chosen)
    print(f"{to} in {written}, {_size(written):,} bytes")
    if check:
        _check(written, trained, data_dir)


def _read_files(place: Path) -> list[Path]:
    """Returns the files of a run, or the weights file, that an export must not replace."""
    files = [place, *(place / name for name in (CONFIG, METRICS, RESULT, WEIGHTS, POPULATION))]
    return [file for file in files if file.is_file()]


def _size(written: Path) -> int:
    files = written.rglob("*") if written.is_dir() else [written]
    return sum(file.stat().st_size for file in files if file.is_file())


def _check(written: Path, trained: TrainedModel, data_dir: Path | None) -> None:
    """Compares the file with the network, or says why it cannot be done.

    Raises:
        RunError: the file computes something else.
    """
    try:
        dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    except MnistjaxError as error:
        print(f"not compared: {one_line(str(error))}")
        return
    try:
        found = mnistjax.export.check_export(written, trained, dataset.test)
    except ConfigError as error:  # No onnxruntime.
        print(f"not compared: {one_line(str(error))}")
        return
    print(
        f"compared on all {found.count:,} test images of {dataset.info.name}: {found.output} "
        f"differ by at most {found.difference:.1e}, accuracy {found.exported_accuracy:.2%} of the "
        f"file and {found.accuracy:.2%} of the network"
    )
    if not found.passed:
        raise RunError(
            f"expected {written} to compute the {found.output} of the network, found a difference "
            f"of {found.difference:g}, more than rounding explains"
        )
