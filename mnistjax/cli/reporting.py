"""Commands about one run: its report, and its repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import mnistjax
from mnistjax.errors import RunError


def report(
    run: Annotated[Path, tyro.conf.Positional],
    data_dir: Path | None = None,
    output: Path | None = None,
) -> None:
    """Write a page that shows a run, and its pictures to plots/ of the run directory.

    Args:
        run: Run directory.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        output: File to write; if not given, report.html in the run directory.
    """
    trained = mnistjax.load_run(run)
    dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    print(f"report in {mnistjax.write_report(trained, dataset, run, output=output)}")


def repeat(
    run: Annotated[Path, tyro.conf.Positional],
    data_dir: Path | None = None,
) -> None:
    """Train a finished run again, and say whether the result is the same to the last bit.

    Args:
        run: Run directory.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
    """
    trained = mnistjax.load_run(run)
    dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    difference = mnistjax.runs.repeat(trained, dataset, callbacks=[mnistjax.ProgressBar()])
    if difference is None:
        print(f"equal: every number of {run} but the times, and every bit of its weights")
        return
    changed = mnistjax.runs.describe_environment_change(trained)
    hint = f" (versions: {changed})" if changed else ""
    raise RunError(f"the repeated run first differs from {run} in {difference}{hint}")
