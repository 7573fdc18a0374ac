"""The directory of a run, locked before training, whose files are written atomically."""

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
    """Creates and locks the directory of a run, and writes `config.json` into it.

    Args:
        workdir: the directory; it may exist.
        config: the settings of the run.
        overwrite: whether a run that it already holds may be replaced. Only the files of a run are
            removed then, nothing else in the directory.

    Yields:
        The directory, which is locked until the context ends. The operating system releases the
        lock when the process ends, even if it is killed.

    Raises:
        RunError: the directory holds a run, another run is writing to it, it is not a directory,
            or it is not writable.
    """
    from filelock import FileLock, Timeout

    path = Path(workdir).expanduser()
    with contextlib.ExitStack() as stack:
        try:
            # Checked before anything is written, so that an existing run is left untouched.
            _refuse_held(path, overwrite=overwrite)
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path / LOCK, timeout=0))
            # Checked again, because another run may have finished meanwhile.
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
    """Removes the files of a run and its report, and the folder of the plots if it is empty then.

    The report and the plots go first, because without them the run is still complete.
    """
    plots = path / PLOTS
    for file in (path / REPORT, *(plots / f"{name}.png" for name in PLOT_NAMES)):
        file.unlink(missing_ok=True)
    if plots.is_dir() and not any(plots.iterdir()):
        plots.rmdir()
    for name in (RESULT, WEIGHTS, METRICS, CONFIG):
        (path / name).unlink(missing_ok=True)


def write_metrics(workdir: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes `metrics.jsonl`, one JSON object per epoch, replacing the whole file atomically."""
    lines = [json.dumps(row) + "\n" for row in history]
    write_text_atomically(workdir / METRICS, "".join(lines))


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json`, the last file of a finished run."""
    write_text_atomically(workdir / RESULT, json.dumps(result, indent=2) + "\n")


def read_result(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the `result.json` of a run.

    Args:
        workdir: the run directory.

    Returns:
        The content of the file: the description, metrics and timings of the run.

    Raises:
        RunError: the directory holds no finished run, or the file is damaged.
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
    """Reads the `metrics.jsonl` of a run.

    Args:
        workdir: the run directory.

    Returns:
        One row of metrics per epoch.

    Raises:
        RunError: the file does not exist or is damaged.
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
