"""`fit` as users call it: training, and then the page that shows what was learned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnistjax.data import Dataset
from mnistjax.report.page import write_report
from mnistjax.runs import Callback, FitResult, TrainConfig
from mnistjax.runs import fit as train
from mnistjax.runs.directory import REPORT


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    report: bool = True,
) -> FitResult:
    """Trains a network, measures it on all test images, and shows what it learned.

    The validation images are split off the training images; nothing is chosen on the test images.

    Args:
        config: the settings.
        dataset: what `load_dataset` gave, or arrays of your own.
        workdir: directory for `config.json`, `metrics.jsonl`, `weights.safetensors` and
            `result.json`, and then for `report.html` and `plots/*.png`. None writes nothing.
        overwrite: whether a run that `workdir` already holds may be replaced.
        callbacks: told of the progress, in this order.
        report: whether the report is written, when the run has come to its end and all its other
            files lie in `workdir`. An interruption then costs the report alone.

    Returns:
        The trained state, the history and the result.

    Raises:
        ConfigError: a setting that does not go with this data set.
        RunError: a work directory that holds a run, or that cannot be written.
        NonFiniteLossError: a loss became NaN or infinite, of training, validation or test images.
    """
    if report and workdir is not None:
        callbacks = [*callbacks, _ReportWriter(dataset, callbacks)]
    return train(config, dataset, workdir=workdir, overwrite=overwrite, callbacks=callbacks)


class _ReportWriter(Callback):
    """Writes the report when the run is over; the other callbacks hear of it first."""

    def __init__(self, dataset: Dataset, listeners: Sequence[Callback]) -> None:
        self._dataset = dataset
        self._listeners = listeners

    def on_start(self, run: Mapping[str, Any]) -> None:
        self._workdir = Path(run["workdir"])

    def on_end(self, result: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener.on_report(str(self._workdir / REPORT))
        write_report(self._workdir, self._dataset)
