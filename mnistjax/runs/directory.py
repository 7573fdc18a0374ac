"""The directory of a run, locked before training, whose files are written atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnistjax.atomic import remove_leftovers, write_text_atomically
from mnistjax.errors import ConfigError, RunError
from mnistjax.files import parse_json, read_json, user_path
from mnistjax.runs.config import TrainConfig

CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints"
_TEXTS = {"recipe", "model", "dataset", "source", "device", "teacher"}
_TEXTS |= {"dataset_sha256", "teacher_sha256"}
_NUMBERS = {
    *("parameters", "seed", "train_count", "validation_count", "test_count", "batch_size", "epoch"),
    *("epochs", "step", "steps", "steps_per_epoch", "device_count", "images_per_second"),
    *("compile_seconds", "total_seconds", "cache_bytes"),
}
_METRICS = ("train_", "validation_", "test_")
_NAME = re.compile(r"step-\d{10}\.safetensors")
LOCK = ".lock"
# What the report adds to a finished run.
REPORT, DRAW_PAGE = "report.html", "draw.html"
PLOTS = "plots"
PLOT_NAMES = (
    *("samples", "class_distribution", "augmentation", "learning_curves", "confusion", "mistakes"),
    *("reliability", "robustness", "filters", "saliency", "embedding"),
)

_LOG = logging.getLogger(__name__)


class RunDirectory:
    """A locked directory of a run.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path, config: TrainConfig) -> None:
        """Takes the directory, which may hold the run that is to be replaced.

        Args:
            path: the directory.
            config: the settings of the new run.

        Raises:
            OSError: its lock cannot be looked up.
        """
        self.path = path
        self._config: TrainConfig | None = config
        self._warned = False
        self._lock = _identity(path / LOCK)

    def begin(self) -> None:
        """Prepares to write a file of the run; to be called before each of them.

        The first time, the run that the directory held is removed and `config.json` written: a run
        that is to be overwritten stays until the new one has something to keep.

        Raises:
            OSError: the directory is not writable, or it has vanished with its lock.
        """
        # Another run may hold the lock of a new directory in its place.
        if _identity(self.path / LOCK) != self._lock:
            raise FileNotFoundError(errno.ENOENT, "the work directory has been replaced")
        if self._config is None:
            return
        _remove_run(self.path)
        write_text_atomically(self.path / CONFIG, self._config.to_json())
        self._config = None

    @property
    def has_begun(self) -> bool:
        """Whether the directory holds this run, and not one that is to be overwritten."""
        return self._config is None

    def warn(self, what: str, error: OSError) -> None:
        """Logs that a file could not be written; only the first time, as the rest would follow."""
        if not self._warned:
            _LOG.warning(
                "%s could not be written to %s (%s); training goes on", what, self.path, error
            )
        self._warned = True

    def go_on(self) -> None:
        """Keeps the files of the run that the directory holds, because it is resumed."""
        self._config = None


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def claim_run_directory(
    workdir: str | os.PathLike[str],
    config: TrainConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[RunDirectory]:
    """Creates and locks the directory of a run, and writes `config.json` if it holds none yet.

    Args:
        workdir: the directory; it may exist.
        config: the settings of the run.
        overwrite: whether a run that it already holds may be replaced. Only the files of a run are
            removed then, nothing else in the directory.
        resume: whether a run that it already holds may go on.

    Yields:
        The directory, which is locked until the context ends. The operating system releases the
        lock when the process ends, even if it is killed.

    Raises:
        ConfigError: both `overwrite` and `resume` are given, or the path cannot be used.
        RunError: the directory holds a run, another run is writing to it, it is not a directory,
            or it is not writable.
    """
    from filelock import FileLock, Timeout

    if overwrite and resume:
        raise ConfigError("expected overwrite or resume, found both")
    path = user_path(workdir, "work directory")
    with contextlib.ExitStack() as stack:
        with says_not_writable(path):
            # Checked before anything is written, so that an existing run is left untouched.
            _refuse_held(path, overwrite=overwrite, resume=resume)
            path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(path / LOCK, timeout=0))
            except Timeout as error:
                raise RunError(
                    f"expected a work directory of its own, found {path}, which another run "
                    "writes to"
                ) from error
            # Checked again, because another run may have finished meanwhile.
            held = _refuse_held(path, overwrite=overwrite, resume=resume)
            remove_leftovers(path, ("config", "metrics", "result", "weights", "report"))
            remove_leftovers(path / CHECKPOINTS, ("step-*",))
            remove_leftovers(path / PLOTS, PLOT_NAMES)
            directory = RunDirectory(path, config)
            if not held:
                directory.begin()
        yield directory


@contextlib.contextmanager
def says_not_writable(path: Path) -> Iterator[None]:
    """Converts errors of the operating system.

    Args:
        path: the run directory, to which the body writes.

    Raises:
        RunError: the directory is not writable.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"expected a writable work directory, found {path}: {error}") from error


def _refuse_held(path: Path, *, overwrite: bool, resume: bool) -> bool:
    """Returns whether the directory holds a run; raises RunError if that is not allowed."""
    _refuse_foreign(path)
    names = (CONFIG, METRICS, RESULT, WEIGHTS, CHECKPOINTS)
    held = [name for name in names if (path / name).exists()]
    if held and not (overwrite or resume):
        if RESULT in held:
            found = "a finished run"
            ways = "name another one, or allow to overwrite it (--overwrite)"
        else:
            found = "a run that was interrupted"
            ways = "go on with it (--resume), or allow to overwrite it (--overwrite)"
        raise RunError(
            f"expected a work directory without a run, found {found} in {path} ({held[0]}): {ways}"
        )
    return bool(held)


def _refuse_foreign(path: Path) -> None:
    """Refuses a directory with files of other programs that the run would replace."""
    file = path / CONFIG
    if file.exists():
        try:
            settings = read_json(file)
        except (OSError, ValueError):
            settings = None
        if not isinstance(settings, dict) or not {"model", "learning_rate"} <= settings.keys():
            raise RunError(
                f"expected a work directory, found {file}, which does not belong to a run: move it"
            )
        return
    pictures = [f"{PLOTS}/{name}.png" for name in PLOT_NAMES]
    for name in (REPORT, DRAW_PAGE, *pictures):
        if (path / name).exists():
            raise RunError(
                f"expected a work directory, found {path / name} without a run: move it, or name "
                "another directory"
            )


def remove_run(path: Path) -> None:
    """Removes a run that no process is writing to, and its directory if it is empty then.

    Args:
        path: the directory; nothing is done if it is missing.

    Raises:
        RunError: another run is writing to it, or it cannot be removed.
    """
    if not path.is_dir():
        return
    with says_not_writable(path), claim_run_directory(path, TrainConfig(), overwrite=True):
        _remove_run(path)
    with contextlib.suppress(OSError):
        (path / LOCK).unlink(missing_ok=True)
        path.rmdir()


def _remove_run(path: Path) -> None:
    """Removes the files of a run and its report, and the folder of the plots if it is empty then.

    The report and the plots go first, because without them the run is still complete.
    """
    plots = path / PLOTS
    for file in (path / REPORT, path / DRAW_PAGE, *(plots / f"{name}.png" for name in PLOT_NAMES)):
        file.unlink(missing_ok=True)
    if plots.is_dir() and not any(plots.iterdir()):
        plots.rmdir()
    for name in (RESULT, WEIGHTS, METRICS):
        (path / name).unlink(missing_ok=True)
    for file in find_checkpoints(path):
        file.unlink()
    with contextlib.suppress(OSError):
        (path / CHECKPOINTS).rmdir()
    (path / CONFIG).unlink(missing_ok=True)


def find_checkpoints(workdir: Path) -> list[Path]:
    """Returns the files of the checkpoints of a run, the newest first."""
    try:
        files = [file for file in (workdir / CHECKPOINTS).iterdir() if _NAME.fullmatch(file.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(files, reverse=True)


def checkpoint_file(workdir: Path, step: int) -> Path:
    """Returns the file of the checkpoint after a step."""
    return workdir / CHECKPOINTS / f"step-{step:010d}.safetensors"


def write_metrics(workdir: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes `metrics.jsonl`, one JSON object per epoch, replacing the whole file atomically."""
    write_text_atomically(workdir / METRICS, "".join(json.dumps(row) + "\n" for row in history))


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
        ConfigError: the path cannot be used.
    """
    file = user_path(workdir, "run directory") / RESULT
    try:
        result = read_json(file)
    except FileNotFoundError as error:
        raise RunError(f"expected a finished run, found no {RESULT} in {workdir}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"expected a JSON object in {file}: {error}") from error
    _check_types(result, file)
    return result


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the `metrics.jsonl` of a run.

    Args:
        workdir: the run directory.

    Returns:
        One row of metrics per epoch.

    Raises:
        RunError: the file does not exist or is damaged.
        ConfigError: the path cannot be used.
    """
    file = user_path(workdir, "run directory") / METRICS
    try:
        rows = [parse_json(line) for line in file.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"expected a JSON object per line in {file}: {error}") from error
    if not rows:
        raise RunError(f"expected a JSON object per line, at least one, in {file}")
    for row in rows:
        _check_types(row, file)
    return rows


def _are_texts(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(text, str) and text.isprintable() for text in value.values())


def _check_types(row: Any, file: Path) -> None:
    """Refuses what a run does not write: text for numbers, or codes of a terminal."""
    if not isinstance(row, dict):
        raise RunError(f"expected a JSON object in {file}, found {type(row).__name__}")
    for name, value in row.items():
        if name in _TEXTS:
            fits, expected = _are_texts({name: value}), "printable text"
        elif name in _NUMBERS or name.startswith(_METRICS):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits, expected = number or value is None, "a number"
        elif name == "versions":
            fits, expected = _are_texts(value), "an object of printable texts"
        else:
            continue
        if not fits:
            raise RunError(f"expected {expected} as {name!r} in {file}, found {value!r}")
