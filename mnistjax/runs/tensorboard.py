"""Event files for TensorBoard; they need the extra `tensorboard`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from mnistjax.errors import ConfigError, RunError
from mnistjax.runs.callbacks import Callback, Row
from mnistjax.runs.directory import CONFIG
from mnistjax.runs.trained import FitResult

# Rare enough to cost little, frequent enough to watch a run.
_FLUSH_SECONDS = 2


class TensorBoard(Callback):
    """Writes event files for TensorBoard beside `metrics.jsonl`, with the same metrics.

    Scalars by update: `loss/train`, `accuracy/train`, `loss/validation`, `accuracy/validation` and
    `images_per_second` after each epoch, `loss/test` and `accuracy/test` at the end. Texts: `run`,
    the description of the run, and `config`, its settings. View them with
    `tensorboard --logdir runs`.
    """

    _writer: Any = None  # Stays None if an earlier callback ended the run in `on_start`.

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        """Checks that tensorboardX is installed, before anything is trained.

        Args:
            directory: folder of the event files; `tensorboard` in the directory of the run if
                None. Events of an earlier run in the same folder are hidden, not removed.

        Raises:
            ConfigError: the package tensorboardX is not installed.
        """
        if importlib.util.find_spec("tensorboardX") is None:
            raise ConfigError(
                "TensorBoard event files need the package tensorboardX, found none: "
                "pip install 'mnistjax[tensorboard]'"
            )
        self._directory = directory

    def on_start(self, run: Row) -> None:
        """Opens the event file and writes the description of the run.

        Raises:
            ConfigError: the run has no work directory, and no directory was given.
            RunError: the directory is not writable.
        """
        from tensorboardX import SummaryWriter

        if self._directory is None and run["workdir"] is None:
            raise ConfigError("TensorBoard needs a directory where the run has no workdir")
        folder = Path(self._directory or Path(run["workdir"]) / "tensorboard").expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS)
        except OSError as error:
            raise RunError(
                f"expected a writable folder for event files, found {folder}: {error}"
            ) from error
        self._writer.add_text("run", _as_table(run), 0)
        if run["workdir"] is not None:
            config = (Path(run["workdir"]) / CONFIG).read_text(encoding="utf-8")
            self._writer.add_text("config", f"```json\n{config}```", 0)

    def on_epoch(self, row: Row) -> None:
        """Writes the metrics of an epoch."""
        self._add_metrics(row, "train", row["step"])
        self._add_metrics(row, "validation", row["step"])
        self._writer.add_scalar("images_per_second", row["images_per_second"], row["step"])

    def on_end(self, fitted: FitResult) -> None:
        """Writes the metrics of the test images."""
        self._add_metrics(fitted.result, "test", fitted.result["steps"])

    def close(self) -> None:
        """Flushes and closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add_metrics(self, row: Row, split: str, step: int) -> None:
        for name in ("loss", "accuracy"):
            value = row[f"{split}_{name}"]
            if value is not None:  # None: there are no validation images.
                self._writer.add_scalar(f"{name}/{split}", value, step)


def _as_table(run: Row) -> str:
    """Returns a Markdown table, which is how TensorBoard shows a text."""
    rows = [f"| {name} | {value} |\n" for name, value in run.items()]
    return "| | |\n|---|---|\n" + "".join(rows)
