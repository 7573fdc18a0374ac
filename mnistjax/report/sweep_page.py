"""Writing the report of a population: one self-contained page that opens from disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mnistjax import plots
from mnistjax.atomic import write_text_atomically
from mnistjax.errors import ConfigError, RunError
from mnistjax.files import user_path
from mnistjax.plots.sweeps import varying
from mnistjax.report.lines import Network, draw_curves, draw_parallel, name_settings, name_value
from mnistjax.report.pictures import ReportImage
from mnistjax.report.rendering import render
from mnistjax.runs import Population, TrainedModel, package_versions
from mnistjax.runs.directory import REPORT
from mnistjax.runs.population_files import member_path

_SECTIONS = (
    ("compared", "Settings compared"),
    ("networks", "Every network"),
    ("each", "Setting by setting"),
    ("run", "What was run"),
)
_CONDITIONS = (
    *(("source", "data source", "{}"), ("train_count", "training images", "{:,}")),
    *(("validation_count", "validation images", "{:,}"), ("test_count", "test images", "{:,}")),
    *(("device", "device", "{}"), ("device_count", "devices", "{}")),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        value: the number by which the table is sorted; None if it is the text.
        link: address of a page, or None.
    """

    text: str = ""
    value: float | None = None
    link: str | None = None


def write_sweep_report(
    population: Population,
    workdir: str | os.PathLike[str] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes the report of a population: `report.html`.

    The page is self-contained: the best settings by validation accuracy, a table of all settings
    with mean and spread over the seeds, the learning curves of all networks, parallel coordinates,
    the accuracy over each setting, and a table of the networks. The same population gives the same
    bytes.

    Args:
        population: what `fit_population` or `load_population` returned.
        workdir: the directory to write to; that of the population if None.
        output: the path of the page; `report.html` in `workdir` if None.

    Returns:
        The path of the page.

    Raises:
        ConfigError: neither `workdir` nor `output` is given, and the population has no directory.
        RunError: the training of every member failed, or the page cannot be written.

    >>> import mnistjax, tempfile
    >>> config = mnistjax.get_recipe("softmax").replace(steps=5, validation_fraction=0.1)
    >>> digits = mnistjax.load_dataset("digits")
    >>> found = mnistjax.fit_population(config, digits, learning_rate=[0.01, 0.1])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_sweep_report(found, directory).name
    'report.html'
    """
    page = _page_path(population, workdir, output)
    if not any(member.trained for member in population.members):
        raise RunError("expected a network to report, found that the training of all failed")
    text = render(
        "sweep.html.j2",
        describe_population(population, page.parent),
        styles=("report.css", "sweep.css"),
        scripts=("sweep.js",),
    )
    try:
        write_text_atomically(page, text)
    except OSError as error:
        raise RunError(f"expected to write the report to {page}: {error}") from error
    return page


def _page_path(
    population: Population,
    workdir: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
) -> Path:
    if output is not None:
        return user_path(output, "report")
    directory = population.workdir if workdir is None else user_path(workdir, "workdir")
    if directory is None:
        raise ConfigError("expected a workdir or an output for the report, found neither")
    return directory / REPORT


def describe_population(population: Population, folder: Path) -> dict[str, Any]:
    """Returns what the template names.

    Args:
        population: the population; it has a trained member.
        folder: the folder of the page, from which it links to the reports of members.
    """
    first = next(member.trained for member in population.members if member.trained)
    rows, names = population.rows, varying(population)
    seeds = {member.settings.get("seed") for member in population.members}
    differing = [*names, "seed"] if len(seeds) > 1 else names
    validated = any(row["validation_accuracy"] is not None for row in rows)
    networks = _networks(population, "validation" if validated else "train")
    split = "validation" if validated else "training"
    return {
        **_describe_best(population, validated, names),
        "title": _title(population, first, names),
        "sections": [section for section in _SECTIONS if names or section[0] != "each"],
        "split": split,
        "validated": validated,
        "count": len(rows),
        "failed": [
            (number, name_settings({name: member.settings[name] for name in differing}))
            for number, member in enumerate(population.members)
            if member.error is not None
        ],
        "ended": sum(bool(member.history) for member in population.members),
        "train_seconds": sum(row["train_seconds"] or 0.0 for row in rows),
        "names": names,
        "summary": _summary_table(population, names, validated),
        "members": _members_table(population, differing, validated, folder),
        "curves": draw_curves(networks, split),
        "parallel": draw_parallel(networks, names, split),
        "pictures": _draw_settings(population, names, "validation" if validated else "test"),
        "settings": _common_settings(first, differing),
        **_describe_conditions(first),
    }


def name_spread(mean: float | None, deviation: float | None) -> str:
    """Returns a mean and a standard deviation, if there is one, as a text in percent.

    >>> name_spread(0.5, 0.012), name_spread(0.5, None), name_spread(None, None)
    ('50.00 ± 1.20', '50.00', '')
    """
    if mean is None:
        return ""
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _title(population: Population, first: TrainedModel, names: Sequence[str]) -> str:
    model = [] if "model" in names else [first.config.model]
    what = "networks" if len(population) > 1 else "network"
    return " ".join([str(len(population)), *model, what, "on", first.info.name])


def _networks(population: Population, split: str) -> list[Network]:
    """Returns the members that did not fail and have an accuracy for these images."""
    key, networks = f"{split}_accuracy", []
    for row, member in zip(population.rows, population.members, strict=True):
        if row[key] is not None:
            history = member.trained.history if member.trained else member.history
            curve = [
                (epoch["epoch"], 100 * epoch[key])
                for epoch in history
                if None not in (epoch.get("epoch"), epoch.get(key))
            ]
            networks.append(Network(row["member"], member.settings, 100 * row[key], curve))
    return networks


def _describe_best(population: Population, validated: bool, names: Sequence[str]) -> dict[str, Any]:
    """Describes the settings of the highest mean validation accuracy, or the only ones."""
    lines = population.summary()
    best = lines[0] if len(lines) == 1 else None
    if validated:
        # What a search ended early is no longer a candidate.
        measured = [line for line in lines if line["n"]]
        best = max(measured, key=lambda line: line["validation_accuracy_mean"])
    chosen = {name: best[name] for name in names} if best and len(lines) > 1 else {}
    return {
        "best_settings": name_settings(chosen),
        "best_accuracies": [
            (
                split,
                name_spread(best[f"{split}_accuracy_mean"], best[f"{split}_accuracy_sd"]),
                _interval(best, split).text,
            )
            for split in ("validation", "test")
            if best and best[f"{split}_accuracy_mean"] is not None
        ],
    }


def _summary_table(population: Population, names: Sequence[str], validated: bool) -> dict[str, Any]:
    splits = ("validation", "test") if validated else ("test",)
    ended = any(member.history for member in population.members)
    told = ("failed", "eliminated", "trained_epochs") if ended else ("failed",)
    spreads = [head for split in splits for head in (f"{split} %", f"{split} interval")]
    rows = []
    for line in population.summary():
        members = [
            number
            for number, member in enumerate(population.members)
            if all(member.settings[name] == line[name] for name in names)
        ]
        cells = [_setting_cell(line[name]) for name in names] or [Cell("the same for all")]
        cells += [_number(line[name], "{}") for name in ("n", *told)]
        for split in splits:
            mean, deviation = (line[f"{split}_accuracy_{key}"] for key in ("mean", "sd"))
            cells += [Cell(name_spread(mean, deviation), mean), _interval(line, split)]
        rows.append((members, cells))
    heads = [name.replace("_", " ") for name in names] or ["settings"]
    return _table([*heads, "n", *(name.replace("_", " ") for name in told), *spreads], rows)


def _members_table(
    population: Population, names: Sequence[str], validated: bool, folder: Path
) -> dict[str, Any]:
    splits = ("train", "validation", "test") if validated else ("train", "test")
    errors = any(member.error for member in population.members)
    rows = []
    for row, member in zip(population.rows, population.members, strict=True):
        number = row["member"]
        cells = [Cell(str(number), number, _link(population.workdir, number, folder))]
        cells += [_setting_cell(member.settings[name]) for name in names]
        shares = [row[f"{split}_accuracy"] for split in splits]
        cells += [_number(None if share is None else 100 * share, "{:.2f}") for share in shares]
        cells += [_number(row["epochs"], "{:.4g}"), _number(row["train_seconds"], "{:.1f}")]
        rows.append(([number], cells + [Cell(member.error or "")] * errors))
    accuracies = [f"{'training' if split == 'train' else split} %" for split in splits]
    heads = ["network", *(name.replace("_", " ") for name in names), *accuracies]
    return _table([*heads, "epochs", "seconds", *["error"] * errors], rows)


def _table(heads: Sequence[str], rows: Sequence[tuple[list[int], list[Cell]]]) -> dict[str, Any]:
    columns = zip(*(cells for _, cells in rows), strict=True)
    # Words are aligned to the left, and numbers to the right.
    words = [any(cell.text and cell.value is None for cell in column) for column in columns]
    return {
        "heads": list(zip(heads, words, strict=True)),
        "rows": [
            (" ".join(map(str, members)), list(zip(cells, words, strict=True)))
            for members, cells in rows
        ],
    }


def _setting_cell(value: Any) -> Cell:
    return Cell(name_value(value), value if isinstance(value, int | float) else None)


def _number(value: float | None, shape: str) -> Cell:
    return Cell() if value is None else Cell(shape.format(value), value)


def _interval(line: Mapping[str, Any], split: str) -> Cell:
    low, high = line[f"{split}_accuracy_low"], line[f"{split}_accuracy_high"]
    return Cell() if low is None else Cell(f"{100 * low:.2f} to {100 * high:.2f}", low)


def _link(workdir: Path | None, number: int, folder: Path) -> str | None:
    """Returns the relative address of the report of a member, if there is one."""
    if workdir is None or not (report := member_path(workdir, number) / REPORT).is_file():
        return None
    return quote(Path(os.path.relpath(report, folder)).as_posix())


def _draw_settings(
    population: Population, names: Iterable[str], split: Any
) -> dict[str, ReportImage]:
    return {
        name: ReportImage(
            plots.render_png(plots.sweep(population, name, split=split)),
            f"Chart of the {split} accuracy of every network over {name.replace('_', ' ')}",
        )
        for name in names
    }


def _common_settings(first: TrainedModel, differing: Sequence[str]) -> list[tuple[str, Any]]:
    values = dataclasses.asdict(first.config)
    return [
        (name.replace("_", " "), value)
        for name, value in values.items()
        if value is not None and name not in differing
    ]


def _describe_conditions(first: TrainedModel) -> dict[str, Any]:
    result = first.result or {}
    measured = [
        (name, shape.format(result[key]))
        for key, name, shape in _CONDITIONS
        if result.get(key) is not None
    ]
    return {
        "conditions": [("data set", first.info.name), *measured],
        "versions": result.get("versions") or package_versions(),
    }
