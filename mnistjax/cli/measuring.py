"""Commands that evaluate and compare runs."""

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
from mnistjax.evaluation import CORRUPTIONS, Analysis, Calibration, Comparison, PairTest, Robustness

# More columns of counts would not fit into 80 characters.
_MAX_CLASSES_SHOWN = 12
_SIGNIFICANCE = 0.05


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    dataset: str | None = None,
    data_dir: Path | None = None,
    robustness: bool = True,
    json: Path | None = None,
) -> None:
    """Measure the saved weights of a run on all test images, in detail.

    Args:
        run: Run directory, or a weights file.
        dataset: Data set to measure on; if not given, the one that the network was trained on.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        robustness: Leave out the accuracies on shifted, rotated, blurred, ... images, which take
            most of the time.
        json: File for all metrics as JSON.
    """
    trained = mnistjax.load_run(run)
    data = mnistjax.runs.load_run_dataset(trained, dataset=dataset, data_dir=data_dir)
    analysis = mnistjax.analyze(trained, data)
    _print_headline(analysis)
    print(f"model    {trained.model.name}, from {run}")
    print(f"dataset  {data.info.name} ({data.source})")
    print_tables(analysis)
    rows = mnistjax.measure_robustness(trained, data.test) if robustness else ()
    if rows:
        _print_robustness(rows)
    if json is not None:
        described = {"run": str(run), "model": trained.model.name, "dataset": data.info.name}
        _write_json(json, {**described, "source": data.source, **_metrics(analysis, rows)})


def _print_headline(analysis: Analysis) -> None:
    low, high = analysis.interval
    count = len(analysis.labels)
    print(
        f"test accuracy {analysis.accuracy:.2%} on all {count:,} images, loss {analysis.loss:.4f}"
    )
    print(f"95 % interval {low:.2%} to {high:.2%}")
    kept = analysis.count_without_label_errors
    if kept is not None:
        print(
            f"without the {count - kept} images whose label is known to be wrong: "
            f"{analysis.accuracy_without_label_errors:.2%} on {kept:,} images"
        )


def print_tables(analysis: Analysis) -> None:
    """Prints the metrics of every class, the confusions and the calibration.

    Args:
        analysis: what `mnistjax.analyze` returned.
    """
    _print_classes(analysis)
    _print_confusions(analysis)
    _print_calibration(analysis.calibration)


def _print_classes(analysis: Analysis) -> None:
    table = make_table("class", "precision", "recall", "F1", "images", numbers_from=1)
    for row in analysis.classes:
        shares = (row.precision, row.recall, row.f1)
        table.add_row(row.name, *(f"{share:.2%}" for share in shares), f"{row.support:,}")
    show(table, title="Classes")


def _print_confusions(analysis: Analysis) -> None:
    names = analysis.class_names
    if len(names) <= _MAX_CLASSES_SHOWN:
        labels = [name if name == str(i) else f"{i} {name}" for i, name in enumerate(names)]
        table = make_table("", *(str(index) for index in range(len(names))), numbers_from=1)
        for label, counts in zip(labels, analysis.confusion, strict=True):
            table.add_row(label, *(str(count) if count else "." for count in counts))
        show(table, title="Confusion matrix (rows: true classes, columns: predicted classes)")
    pairs = make_table("true", "predicted", "images", numbers_from=2)
    for pair in analysis.top_confusions:
        pairs.add_row(names[pair.true], names[pair.predicted], f"{pair.count:,}")
    if analysis.top_confusions:
        show(pairs, title="Most confused")


def _print_calibration(calibration: Calibration) -> None:
    table = make_table("confidence", "images", "mean confidence", "accuracy", numbers_from=1)
    columns = (calibration.counts, calibration.confidence, calibration.accuracy)
    edges = zip(calibration.edges[:-1], calibration.edges[1:], strict=True)
    for (low, high), count, confidence, accuracy in zip(edges, *columns, strict=True):
        if count:
            span = f"{low:.0%} to {high:.0%}"
            table.add_row(span, f"{count:,}", f"{confidence:.1%}", f"{accuracy:.1%}")
    show(table, title=f"Calibration (expected calibration error {calibration.ece:.2%})")


def _print_robustness(rows: Sequence[Robustness]) -> None:
    most = max(len(corruption.strengths) for corruption in CORRUPTIONS.values())
    table = make_table("corruption", "unit", "strength: accuracy", *[""] * (most - 1))
    for (name, unit), measured in groupby(rows, lambda row: (row.corruption, row.unit)):
        cells = [
            f"{row.strength:g}: {row.accuracy:.2%}" if unit else f"{row.accuracy:.2%}"
            for row in measured
        ]
        table.add_row(name, unit, *cells)
    show(table, title=f"Robustness (on {rows[0].count:,} images)")


def _metrics(analysis: Analysis, rows: Sequence[Robustness]) -> dict[str, Any]:
    """Returns the content of the JSON file; empty bins of the calibration become null."""
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
        "accuracy_without_label_errors": analysis.accuracy_without_label_errors,
        "count_without_label_errors": analysis.count_without_label_errors,
        "classes": [dataclasses.asdict(row) for row in analysis.classes],
        "confusion": analysis.confusion.tolist(),
        "top_confusions": [
            {"true": names[it.true], "predicted": names[it.predicted], "count": it.count}
            for it in analysis.top_confusions
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
        runs: Run directories. Those that differ in nothing but the seed are one recipe.
        data_dir: Folder of the data sets; if not given, MNISTJAX_DATA_DIR, or the folder that
            TensorFlow Datasets uses.
        plot: File for a bar chart, for example comparison.png.
    """
    comparison = mnistjax.compare_runs(runs, data_dir=data_dir)
    print_comparison(comparison)
    if plot is not None:
        figure = mnistjax.plots.comparison(comparison.rows)
        with writing(plot), atomic_path(plot) as temporary:
            figure.savefig(temporary, dpi=160)
        print(f"\nbar chart in {plot}")


def print_comparison(comparison: Comparison) -> None:
    """Prints the tables of `mnistjax compare`.

    Args:
        comparison: what `mnistjax.compare_runs` returned.
    """
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
    _print_recipe_tests([pair for pair in comparison.pairs if pair.interval])
    for pair in comparison.pairs:
        if pair.reason:
            print(f"\nno test between {pair.first} and {pair.second}: {pair.reason}")
    _print_network_tests(comparison.pairs)


def _print_recipe_tests(pairs: Sequence[PairTest]) -> None:
    """Prints the results of Welch's tests."""
    if not pairs:
        return
    heads = ("first", "second", "difference", "95 % interval", "p", "adjusted p")
    table = make_table(*heads, "better", numbers_from=2)
    for pair in pairs:
        assert pair.interval is not None
        low, high = (f"{100 * end:+.2f}" for end in pair.interval)
        values = (f"{100 * pair.difference:+.2f}", f"{low} to {high}", *_p_values(pair))
        table.add_row(pair.first, pair.second, *values, _better(pair))
    show(
        table,
        title="Do the recipes differ? Welch's test of the mean accuracy, in percentage points.\n"
        f"Below an adjusted p (Holm's method) of {_SIGNIFICANCE:g} they differ by more than chance",
    )


def _better(pair: PairTest) -> str:
    """Returns which recipe is significantly better, if either is."""
    if pair.adjusted_p_value is None or pair.adjusted_p_value >= _SIGNIFICANCE:
        return "not shown"
    return "first" if pair.difference > 0 else "second"


def _print_network_tests(pairs: Sequence[PairTest]) -> None:
    """Prints the results of McNemar's tests."""
    heads = ("first", "second", "only first right", "only second right", "p", "adjusted p")
    table = make_table(*heads, numbers_from=2)
    for pair in pairs:
        if pair.mcnemar is not None:
            sides = (f"{pair.mcnemar.only_first:,}", f"{pair.mcnemar.only_second:,}")
            table.add_row(pair.first, pair.second, *sides, *_p_values(pair))
    if table.row_count:
        show(
            table,
            title="Do these two networks differ? McNemar's test on the test images. It says\n"
            "nothing about the recipes: for that, train each of them with several seeds",
        )


def _p_values(pair: PairTest) -> list[str]:
    values = [value for value in (pair.p_value, pair.adjusted_p_value) if value is not None]
    return [f"{value:.4f}" if value >= 1e-4 else "< 0.0001" for value in values]


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with writing(file):
        write_text_atomically(file, json_format.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nall metrics in {file}")
