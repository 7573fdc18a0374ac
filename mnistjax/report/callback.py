"""The report as a callback of `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnistjax.errors import ConfigError
from mnistjax.report.page import write_report
from mnistjax.runs import Callback, FitResult
from mnistjax.runs.directory import REPORT


class WriteReport(Callback):
    """Writes `report.html` and `plots/*.png` into the directory of a run when it has ended.

    Everything else lies on disk by then. A report that fails is one warning line: it costs neither
    the result nor the weights, and `write_report` can write it later.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        """Takes the settings.

        Args:
            verbose: whether a line is printed before the report is written, which takes some
                seconds.
        """
        self._verbose = verbose

    def on_start(self, run: Mapping[str, Any]) -> None:
        """Checks that there is a place for the report, before anything is trained.

        Raises:
            ConfigError: the run has no work directory.
        """
        if run["workdir"] is None:
            raise ConfigError("a report needs the directory of a run, found workdir None")

    def on_end(self, fitted: FitResult) -> None:
        """Writes the report.

        Raises:
            RunError: it cannot be written.
        """
        assert fitted.workdir is not None
        if self._verbose:
            from rich.console import Console

            console = Console(highlight=False, soft_wrap=True)
            console.print(f"writing the report {fitted.workdir / REPORT}", markup=False)
        write_report(fitted.trained, fitted.dataset, fitted.workdir)
