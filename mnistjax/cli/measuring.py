"""Commands that look at what runs have learned."""

from __future__ import annotations

import dataclasses
import json as json_format
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import tyro

import mnistjax
from mnistjax.atomic import atomic_path, write_text_atomically
from mnistjax.cli.shell import make_table, show, writing

# As many columns of counts as 80 characters hold.
_MOST_CLASSES_SHOWN = 12


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    dataset: str | None = None,
    data_dir: Path | None = None,
    robustness: bool = True,
    json: Path | None = None,
) -> None:
    """Measure the saved weights of a run on all test images, from every side.

    Args:
        run: Run directory, or a weights file.
        dataset: Data set to measure on; if not given, the one that the network was trained on.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        robustness: Leave out the accuracies on shifted, rotated, blurred, ... images, which take
            most of the time.
        json: File for all figures as JSON.
    """
    trained, data = mnistjax.load_run(run, dataset=dataset, data_dir=data_dir)
    model, variables = trained.model, trained.variables
    probabilities = mnistjax.predict_probabilities(model, variables, data.test.images)
    known_wrong = mnistjax.known_wrong_labels(data)
    analysis = mnistjax.analyse(probabilities, data.test.labels, data.info, known_wrong=known_wrong)
    _print_headline(analysis)
    print(f"model    {model.name}, from {run}")
    print(f"dataset  {data.info.name} ({data.source})")
    print_tables(analysis)
    rows = mnistjax.measure_robustness(model, variables, data.test) if robustness else ()
    if rows:
        _print_robustness(rows)
    if json is not None:
        described = {"run": str(run), "model": model.name, "dataset": data.info.name}
        _write_json(json, {**described, "source": data.source, **_figures(analysis, rows)})


def _print_headline(analysis: mnistjax.Analysis) -> None:
    low, high = analysis.interval
    count = len(analysis.labels)
    print(
        f"test accuracy {analysis.accuracy:.2%} on all {count:,} images, loss {analysis.loss:.4f}"
    )
    print(f"95 % interval {low:.2%} to {high:.2%}")
    if analysis.clean_count is not None:
        print(
            f"without the {count - analysis.clean_count} images whose label is known to be wrong: "
            f"{analysis.clean_accuracy:.2%} on {analysis.clean_count:,} images"
        )


def print_tables(analysis: mnistjax.Analysis) -> None:
    """Prints the figures of the classes, their confusions, and the calibration."""
    _print_classes(analysis)
    _print_confusions(analysis)
    _print_calibration(analysis.calibration)


def _print_classes(analysis: mnistjax.Analysis) -> None:
    table = make_table("class", "precision", "recall", "F1", "images", numbers_from=1)
    for figures in analysis.classes:
        shares = (figures.precision, figures.recall, figures.f1)
        table.add_row(figures.name, *(f"{share:.2%}" for share in shares), f"{figures.support:,}")
    show(table, title="Classes")


def _print_confusions(analysis: mnistjax.Analysis) -> None:
    names = analysis.class_names
    if len(names) <= _MOST_CLASSES_SHOWN:
        labels = [name if name == str(i) else f"{i} {name}" for i, name in enumerate(names)]
        table = make_table("", *(str(index) for index in range(len(names))), numbers_from=1)
        for label, counts in zip(labels, analysis.confusion, strict=True):
            table.add_row(label, *(str(count) if count else "." for count in counts))
        show(table, title="Confusion matrix (a row a true class, a column a predicted class)")
    pairs = make_table("true", "predicted", "images", numbers_from=2)
    for pair in analysis.most_confused:
        pairs.add_row(names[pair.true], names[pair.predicted], f"{pair.count:,}")
    if analysis.most_confused:
        show(pairs, title="Most confused")


def _print_calibration(calibration: mnistjax.Calibration) -> None:
    table = make_table("confidence", "images", "mean confidence", "accuracy", numbers_from=1)
    columns = (calibration.counts, calibration.confidence, calibration.accuracy)
    edges = zip(calibration.edges[:-1], calibration.edges[1:], strict=True)
    for (low, high), count, confidence, accuracy in zip(edges, *columns, strict=True):
        if count:
            span = f"{low:.0%} to {high:.0%}"
            table.add_row(span, f"{count:,}", f"{confidence:.1%}", f"{accuracy:.1%}")
    show(table, title=f"Calibration (expected calibration error {calibration.ece:.2%})")


def _print_robustness(rows: Sequence[mnistjax.Robustness]) -> None:
    most = max(len(corruption.strengths) for corruption in mnistjax.CORRUPTIONS.values())
    table = make_table("corruption", "unit", "strength: accuracy", *[""] * (most - 1))
    for (name, unit), measured in groupby(rows, lambda row: (row.corruption, row.unit)):
        cells = [
            f"{row.strength:g}: {row.accuracy:.2%}" if unit else f"{row.accuracy:.2%}"
            for row in measured
        ]
        table.add_row(name, unit, *cells)
    show(table, title=f"Robustness (on {rows[0].count:,} images)")


def _figures(analysis: mnistjax.Analysis, rows: Sequence[mnistjax.Robustness]) -> dict[str, Any]:
    """Returns what stands in the JSON file; the empty bins of the calibration are null."""
    names = analysis.class_names
    calibration = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in vars(analysis.calibration).items()
    }
    for name in ("confidence", "accuracy"):
        calibration[name] = [None if math.isnan(mean) else mean for mean in calibration[name]]
    return {
        "count": len(analysis.labels),
        "accuracy": analysis.accuracy,
        "interval": analysis.interval,
        "loss": analysis.loss,
        "clean_accuracy": analysis.clean_accuracy,
        "clean_count": analysis.clean_count,
        "classes": [dataclasses.asdict(figures) for figures in analysis.classes],
        "confusion": analysis.confusion.tolist(),
        "most_confused": [
            {"true": names[it.true], "predicted": names[it.predicted], "count": it.count}
            for it in analysis.most_confused
        ],
        "calibration": calibration,
        "robustness": [dataclasses.asdict(row) for row in rows],
    }


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    data_dir: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Compare finished runs, recipe by recipe: accuracy over seeds, size, time, significance.

    Args:
        runs: Run directories. Those that differ in nothing but the seed are taken together.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        plot: File for a bar chart, for example comparison.png.
    """
    comparison = mnistjax.compare_runs(runs, data_dir=data_dir)
    print_comparison(comparison)
    if plot is not None:
        figure = mnistjax.plot_comparison(comparison.rows)
        with writing(plot), atomic_path(plot) as temporary:
            figure.savefig(temporary, dpi=160)
        print(f"\nbar chart in {plot}")


def print_comparison(comparison: mnistjax.Comparison) -> None:
    """Prints the tables of `mnistjax compare`."""
    print(f"{comparison.dataset}, {comparison.count:,} test images")
    heads: tuple[str, ...] = ("recipe", "runs", "accuracy %", "sd", "parameters")
    table = make_table(*heads, "seconds", "images/s", numbers_from=1)
    for row in comparison.rows:
        table.add_row(
            row.name,
            str(len(row.accuracies)),
            f"{100 * row.mean:.2f}",
            "" if math.isnan(row.sd) else f"{100 * row.sd:.2f}",
            f"{row.parameters:,}",
            f"{row.train_seconds:.1f}",
            f"{row.images_per_second:,.0f}",
        )
    show(table, title="Mean and standard deviation over the runs of a recipe")
    if comparison.pairs:
        heads = ("first", "second", "only first right", "only second right")
        pairs = make_table(*heads, "p", numbers_from=2)
        for pair in comparison.pairs:
            test = pair.test
            p_value = f"{test.p_value:.4f}" if test.p_value >= 1e-4 else "< 0.0001"
            sides = (f"{test.only_first:,}", f"{test.only_second:,}")
            pairs.add_row(pair.first, pair.second, *sides, p_value)
        show(pairs, title="McNemar's test, between the first run of each two recipes")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with writing(file):
        write_text_atomically(file, json_format.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nall figures in {file}")
