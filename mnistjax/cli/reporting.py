"""Commands about one run, or one population: its report, and its repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import mnistjax
from mnistjax.errors import RunError
from mnistjax.files import user_path
from mnistjax.runs.population_files import POPULATION


def report(
    run: Annotated[Path, tyro.conf.Positional],
    data_dir: Path | None = None,
    output: Path | None = None,
) -> None:
    """Write a page that shows a run, and its pictures to plots/, or one that shows a sweep.

    Beside the page of a run, draw.html is written, as by mnistjax draw.

    Args:
        run: Directory of a run or a sweep.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses. The page of a sweep needs none.
        output: File to write; if not given, report.html in the directory.
    """
    if (user_path(run, "run") / POPULATION).is_file():
        population = mnistjax.runs.load_population(run)
        print(f"report in {mnistjax.report.write_sweep_report(population, output=output)}")
        return
    trained = mnistjax.load_run(run)
    dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    print(f"report in {mnistjax.write_report(trained, dataset, run, output=output)}")


def repeat(
    run: Annotated[Path, tyro.conf.Positional],
    data_dir: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Train a finished run again, and say whether the result is the same to the last bit.

    Args:
        run: Run directory.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        teacher: Directory of the run or the sweep that taught the network, if one did.
    """
    trained = mnistjax.load_run(run)
    dataset = mnistjax.runs.load_run_dataset(trained, data_dir=data_dir)
    difference = mnistjax.runs.repeat(
        trained,
        dataset,
        teacher=mnistjax.runs.load_teacher(teacher) if teacher else None,
        callbacks=[mnistjax.ProgressBar()],
    )
    if difference is None:
        print(f"equal: every number of {run} but the times, and every bit of its weights")
        return
    changed = mnistjax.runs.describe_environment_change(trained)
    hint = f" (versions: {changed})" if changed else ""
    raise RunError(f"the repeated run first differs from {run} in {difference}{hint}")
