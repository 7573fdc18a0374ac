"""The directory of a run: claimed before training, written file by file, each whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnistjax.atomic import write_text_atomically
from mnistjax.errors import RunError
from mnistjax.runs.config import TrainConfig

CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
LOCK = ".lock"
# What the report adds to a finished run.
REPORT = "report.html"
PLOTS = "plots"
PLOT_NAMES = (
    *("samples", "class_distribution", "augmentation", "learning_curves", "confusion", "mistakes"),
    *("reliability", "robustness", "filters", "saliency", "embedding"),
)


@contextlib.contextmanager
def claim_run_directory(
    workdir: str | os.PathLike[str], config: TrainConfig, *, overwrite: bool = False
) -> Iterator[Path]:
    """Makes the directory of a run, writes `config.json` into it, and keeps other runs out.

    Args:
        workdir: the directory; it may exist.
        config: the settings of the run.
        overwrite: whether a run that it already holds may be replaced. Only the files of a run are
            removed then, nothing else in the directory.

    Yields:
        The directory, which belongs to the caller alone until the context ends. The lock is the
        operating system's: it goes with the process, however that ends.

    Raises:
        RunError: it holds a run already, another run is writing to it, it is no directory, or it
            cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = Path(workdir).expanduser()
    with contextlib.ExitStack() as stack:
        try:
            # Before a directory is made: a taken one is refused without a trace.
            _refuse_held(path, overwrite=overwrite)
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path / LOCK, timeout=0))
            # Once more, as another run may have come to its end meanwhile.
            _refuse_held(path, overwrite=overwrite)
            _remove_run(path)
            write_text_atomically(path / CONFIG, config.to_json())
        except Timeout as error:
            raise RunError(
                f"expected a work directory of its own, found {path}, which another run writes to"
            ) from error
        except OSError as error:
            raise RunError(f"expected a writable work directory, found {path}: {error}") from error
        yield path


def _refuse_held(path: Path, *, overwrite: bool) -> None:
    held = [name for name in (CONFIG, METRICS, RESULT, WEIGHTS) if (path / name).exists()]
    if held and not overwrite:
        raise RunError(
            f"expected a work directory without a run, found {held[0]} in {path}: "
            "name another one, or allow to overwrite it (--overwrite)"
        )


def _remove_run(path: Path) -> None:
    """Removes every file that a run and its report write; the folder of the plots if none is left.

    The report and the plots go first: without them it is still a whole run.
    """
    plots = path / PLOTS
    for file in (path / REPORT, *(plots / f"{name}.png" for name in PLOT_NAMES)):
        file.unlink(missing_ok=True)
    if plots.is_dir() and not any(plots.iterdir()):
        plots.rmdir()
    for name in (RESULT, WEIGHTS, METRICS, CONFIG):
        (path / name).unlink(missing_ok=True)


def write_metrics(workdir: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes `metrics.jsonl`: one JSON object per epoch. Rewriting it all keeps it whole."""
    lines = [json.dumps(row) + "\n" for row in history]
    write_text_atomically(workdir / METRICS, "".join(lines))


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json`, the last file of a run that came to its end."""
    write_text_atomically(workdir / RESULT, json.dumps(result, indent=2) + "\n")


def read_result(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `result.json` of a run.

    Raises:
        RunError: the directory holds no finished run, or its file is damaged.
    """
    file = Path(workdir) / RESULT
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"expected a finished run, found no {RESULT} in {workdir}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"expected a JSON object in {file}: {error}") from error
    if not isinstance(result, dict):
        raise RunError(f"expected a JSON object in {file}, found {type(result).__name__}")
    return result


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl` of a run: a row per epoch.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    file = Path(workdir) / METRICS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise RunError(f"expected a JSON object per line in {file}: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise RunError(f"expected a JSON object per line, at least one, in {file}")
    return rows
