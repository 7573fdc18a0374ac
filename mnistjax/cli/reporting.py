"""The command that writes the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import mnistjax


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
