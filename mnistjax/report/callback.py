"""A callback of `fit` that writes the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnistjax.errors import ConfigError
from mnistjax.report.page import write_report
from mnistjax.runs import Callback, FitResult
from mnistjax.runs.directory import REPORT


class WriteReport(Callback):
    """Writes the report to the run directory when the run has ended.

    The files are `report.html`, `draw.html` and `plots/*.png`. All other files of the run are on
    disk by then. If the report fails, one warning line is logged, the result and the weights are
    kept, and `write_report` can write the report later.

    >>> import mnistjax
    >>> callbacks = [mnistjax.ProgressBar(), WriteReport()]  # For `fit(..., callbacks=callbacks)`.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        """Creates the callback.

        Args:
            verbose: whether to print a line before the report is written, which takes a few
                seconds.
        """
        self._verbose = verbose

    def on_start(self, run: Mapping[str, Any]) -> None:
        """Checks before training that the run has a directory for the report.

        Args:
            run: the facts that `Callback.on_start` describes.

        Raises:
            ConfigError: the run has no directory.
        """
        if run["workdir"] is None:
            raise ConfigError("a report needs the directory of a run, found workdir None")

    def on_end(self, fitted: FitResult) -> None:
        """Writes the report.

        Args:
            fitted: the finished run.

        Raises:
            RunError: the report cannot be written.
        """
        assert fitted.workdir is not None
        if self._verbose:
            from rich.console import Console

            console = Console(highlight=False, soft_wrap=True)
            console.print(f"writing the report {fitted.workdir / REPORT}", markup=False)
        write_report(fitted.trained, fitted.dataset, fitted.workdir)
