"""Writing the report of a run: one self-contained page that opens from disk."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.atomic import atomic_path, write_text_atomically
from mnistjax.data import Dataset
from mnistjax.errors import RunError
from mnistjax.evaluation import (
    Analysis,
    Calibration,
    Robustness,
    analyze,
    find_label_errors,
    measure_robustness,
)
from mnistjax.models import count_parameters
from mnistjax.report.draw_page import try_draw_page
from mnistjax.report.pictures import ReportImage, draw_pictures, encode_image, project_sample
from mnistjax.report.rendering import render
from mnistjax.runs import TrainedModel, package_versions
from mnistjax.runs.directory import DRAW_PAGE, PLOTS, REPORT
from mnistjax.runs.ensemble import Vote

_MAX_MISTAKES = 1000
_ROBUSTNESS_IMAGES = 1000  # Measuring all of MNIST 31 times would take most of a minute.
_MATRIX_CLASSES = 20  # Larger matrices are shown as images: as tables they would be too wide.
_SHADES = 5
_MAX_EPOCHS = 12
_RESULT_KEYS = {
    *("model", "parameters", "source", "train_count", "validation_count", "test_count", "epochs"),
    *("steps", "validation_accuracy", "train_seconds", "compile_seconds", "total_seconds"),
    *("images_per_second", "device", "device_count", "versions"),
}
_ROW_KEYS = {
    *("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
}
_SECTIONS = (
    ("learning", "Learning"),
    ("confusions", "Confusions"),
    ("mistakes", "Mistakes"),
    ("confidence", "Confidence"),
    ("robustness", "Robustness"),
    ("inside", "Inside"),
    ("data", "Data"),
    ("run", "Run"),
)


def write_report(
    trained: TrainedModel,
    dataset: Dataset,
    workdir: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Path:
    """Writes the report of a run or an ensemble: `report.html`, and its images to `plots/*.png`.

    For a network that `render_draw_page` accepts, it also writes the page to draw on, `draw.html`,
    beside the report, which links to it.

    The page is self-contained: metrics, learning curves, confusion matrix, a gallery of mistakes
    with a filter, calibration, robustness, filters, saliency, an embedding, the data, the settings.
    The report of an ensemble has what can be known without the record of a run. The same run gives
    the same bytes on the same machine with the same number of threads.

    Args:
        trained: the network with the result and the history of its run, as in
            `fit(...).trained` and `load_run(run)`; or an ensemble.
        dataset: the data set that it was trained on.
        workdir: the run directory, or for an ensemble one of its own; it is created if it is
            missing.
        output: the path of the page; `report.html` in `workdir` if None.
        seed: seed of all random draws: samples of the test images, corruptions, augmentation and
            the projection.

    Returns:
        The path of the page.

    Raises:
        RunError: the result or the history of the run is missing, or the report cannot be written.
        ConfigError: the number of classes or the image shape of the data set differs from that of
            the network.
        DataFormatError: a logit of the network is not finite.
    """
    directory = Path(workdir)
    if directory.is_file():
        raise RunError(f"expected the directory of a run, found the file {directory}")
    draw_page = try_draw_page(trained)
    facts = _describe_network(trained, dataset)
    # Compiled programs and t-SNE run outside of Python's lock, so pictures are drawn meanwhile.
    with ThreadPoolExecutor() as pool:
        points = pool.submit(project_sample, trained, dataset, seed=seed)
        rows = pool.submit(
            measure_robustness, trained, dataset.test, seed=seed, max_images=_ROBUSTNESS_IMAGES
        )
        analysis = analyze(trained, dataset)
        pictures = draw_pictures(
            trained, dataset, analysis, robustness=rows.result, projection=points.result, seed=seed
        )
        robustness = rows.result()
    page = render(
        "report.html.j2",
        {
            **facts,
            **_describe_history(trained.history),
            **_describe_analysis(analysis),
            **_describe_mistakes(analysis, dataset),
            **_describe_robustness(robustness),
            "pictures": pictures,
            "draw_page": DRAW_PAGE if draw_page else None,
        },
        scripts=("report.js",),
    )
    file = Path(output) if output else directory / REPORT
    pages = {file: page}
    if draw_page:
        pages = {file.with_name(DRAW_PAGE): draw_page, **pages}
    _write(directory, pages, pictures)
    return file


def _describe_network(trained: TrainedModel, dataset: Dataset) -> dict[str, Any]:
    vote = trained.model.apply
    if isinstance(vote, Vote):
        described = _describe_ensemble(trained, vote, dataset)
        sections = tuple(section for section in _SECTIONS if section[0] != "learning")
    else:
        described, sections = _describe_run(trained, dataset, _check_run(trained)), _SECTIONS
    height, width = dataset.info.image_shape[:2]
    return {**described, "sections": sections, "image_height": height, "image_width": width}


def _check_run(trained: TrainedModel) -> Mapping[str, Any]:
    """Returns the result of the run, after checking it and the history for missing entries."""
    result, history = trained.result, trained.history
    if result is None or not history:
        raise RunError(
            "expected a finished run, found a network without the result and the history of one: "
            "load_run(run) reads them from the directory of a run"
        )
    for name, found, keys in (
        ("result", result, _RESULT_KEYS),
        *(("history", row, _ROW_KEYS) for row in history),
    ):
        missing = sorted(keys - found.keys())
        if missing:
            raise RunError(
                f"expected {', '.join(missing)} in the {name} of the run, as this version of "
                f"mnistjax writes, found {', '.join(sorted(found)) or 'nothing'}"
            )
    return result


def _write(directory: Path, pages: Mapping[Path, str], pictures: Mapping[str, ReportImage]) -> None:
    """Writes the files of the report, the report itself last."""
    *_, output = pages
    try:
        for name, picture in pictures.items():
            with atomic_path(directory / PLOTS / f"{name}.png") as temporary:
                temporary.write_bytes(picture.png)
        for file, page in pages.items():
            write_text_atomically(file, page)
    except OSError as error:
        raise RunError(f"expected to write the report to {output}: {error}") from error


def _describe_run(
    trained: TrainedModel, dataset: Dataset, result: Mapping[str, Any]
) -> dict[str, Any]:
    values = dataclasses.asdict(trained.config)
    settings = [(name, value) for name, value in values.items() if value is not None]
    conditions = [
        ("data set", dataset.info.name),
        ("data source", result["source"]),
        ("training images", f"{result['train_count']:,}"),
        ("validation images", f"{result['validation_count']:,}"),
        ("test images", f"{result['test_count']:,}"),
        ("epochs", f"{result['epochs']:g}"),
        ("updates", f"{result['steps']:,}"),
        ("device", result["device"]),
        ("devices", result["device_count"]),
        ("seconds in all", f"{result['total_seconds']:.1f}"),
        *([("teacher", result["teacher"])] if "teacher" in result else []),
    ]
    notes = []
    if trained.config.validation_fraction:
        notes.append(
            "Training metrics are means over the epoch while the weights still change, with "
            "dropout and augmentation where the run has them, so validation may look better."
        )
    if trained.config.patience is not None:
        notes.append(f"The weights are those after epoch {result['epochs']:g}, the best one.")
    recipe = "" if trained.config.recipe == "custom" else f"{trained.config.recipe}: "
    return {
        "title": f"{recipe}{trained.config.model} on {dataset.info.name}",
        "result": result,
        "model": result["model"],
        "parameters": result["parameters"],
        "versions": result["versions"],
        "settings": [(name.replace("_", " "), value) for name, value in settings],
        "conditions": conditions,
        "learning_note": " ".join(notes),
    }


def _describe_ensemble(trained: TrainedModel, vote: Vote, dataset: Dataset) -> dict[str, Any]:
    return {
        "title": f"{trained.model.name} on {dataset.info.name}",
        "result": None,
        "model": trained.model.name,
        "parameters": count_parameters(trained.variables),
        "versions": package_versions(),
        "settings": [
            ("networks", vote.count),
            ("models", ", ".join(dict.fromkeys(model.name for model in vote.models))),
            ("recipe of the first network", trained.config.recipe),
        ],
        "conditions": [
            ("data set", dataset.info.name),
            ("data source", dataset.source),
            ("test images", f"{len(dataset.test):,}"),
        ],
    }


def _describe_history(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not history:
        return {"epochs": (), "epoch_count": 0}
    chosen = np.linspace(0, len(history) - 1, min(len(history), _MAX_EPOCHS)).round().astype(int)
    return {"epochs": [history[index] for index in chosen], "epoch_count": len(history)}


def _describe_analysis(analysis: Analysis) -> dict[str, Any]:
    names = analysis.class_names
    return {
        "analysis": analysis,
        "count": len(analysis.labels),
        "names": names,
        "long_names": max(map(len, names)) > 3,
        "matrix": _describe_matrix(analysis.confusion) if len(names) <= _MATRIX_CLASSES else None,
        "bins": _describe_bins(analysis.calibration),
    }


def _describe_bins(calibration: Calibration) -> list[dict[str, Any]]:
    return [
        {
            "low": float(calibration.edges[index]),
            "high": float(calibration.edges[index + 1]),
            "confidence": float(calibration.confidence[index]),
            "accuracy": float(calibration.accuracy[index]),
            "count": int(calibration.counts[index]),
        }
        for index in np.flatnonzero(calibration.counts)
    ]


def _describe_matrix(confusion: np.ndarray) -> list[list[dict[str, Any]]]:
    mistakes = confusion * ~np.eye(len(confusion), dtype=bool)
    # Square roots, because one large count would leave all other cells without a shade.
    shares = np.sqrt(mistakes / max(int(mistakes.max()), 1))
    return [
        [
            {
                "true": true,
                "predicted": predicted,
                "right": true == predicted,
                "count": int(count),
                "shade": math.ceil(_SHADES * shares[true, predicted]),
            }
            for predicted, count in enumerate(row)
        ]
        for true, row in enumerate(confusion)
    ]


def _describe_mistakes(analysis: Analysis, dataset: Dataset) -> dict[str, Any]:
    shown = analysis.mistakes[:_MAX_MISTAKES]
    label_errors = set(find_label_errors(dataset))
    sides = {"true": analysis.labels[shown], "predicted": analysis.predictions[shown]}
    mistakes = [
        {
            "index": int(index),
            "true": int(true),
            "predicted": int(predicted),
            "confidence": float(analysis.confidences[index]),
            "label_error": int(index) in label_errors,
            "uri": encode_image(dataset.test.images[index]),
        }
        for index, true, predicted in zip(shown, sides["true"], sides["predicted"], strict=True)
    ]
    options = {
        side: [
            {"value": int(label), "name": analysis.class_names[label], "count": int(count)}
            for label, count in zip(*np.unique(labels, return_counts=True), strict=True)
        ]
        for side, labels in sides.items()
    }
    return {
        "mistakes": mistakes,
        "mistake_count": len(analysis.mistakes),
        "options": options,
        "label_errors": label_errors,
    }


def _describe_robustness(rows: Sequence[Robustness]) -> dict[str, Any]:
    changed = [row for row in rows if row.corruption != "none"]
    kinds = [list(kind) for _, kind in groupby(changed, lambda row: row.corruption)]
    return {
        "robust_clean": rows[0].accuracy,
        "robust_count": rows[0].count,
        "robust_columns": max(map(len, kinds)),
        "robust_rows": [(kind[0].corruption, kind[0].unit, kind) for kind in kinds],
    }
