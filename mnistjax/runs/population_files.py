"""The directory of a population: its description, and the run directories of its members."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnistjax.atomic import write_text_atomically
from mnistjax.errors import RunError, RunNotFoundError
from mnistjax.files import read_json, user_path
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import REPORT, remove_run, says_not_writable

POPULATION = "population.json"
# What a search notes on the way.
SEARCH = "search.json"
MEMBERS = "members"

Rows = list[dict[str, Any]]
Digests = Mapping[str, str]


def member_path(directory: Path, number: int) -> Path:
    """Returns the run directory of a member."""
    return directory / MEMBERS / f"{number:03d}"


def open_population(
    workdir: str | os.PathLike[str],
    config: TrainConfig,
    chosen: Rows,
    digests: Digests,
    *,
    overwrite: bool,
    resume: bool,
) -> Path:
    """Creates the directory of a population, or checks the one to resume or to replace.

    Args:
        workdir: the directory.
        config: the settings that the members have in common.
        chosen: the settings of each member.
        digests: fingerprints of the data set, `data`, and of the teacher if any, `teacher`; and the
            search if any, `search`.
        overwrite: whether a population in the directory is removed.
        resume: whether a population in the directory goes on.

    Raises:
        RunError: the directory holds a population, or runs or a report that belong to none, or one
            of other settings or data or another teacher to resume; or another process is writing to
            it, or it cannot be written.
    """
    directory = user_path(workdir, "workdir")
    if (directory / POPULATION).exists():
        found = read_population(directory)
        if resume:
            _check_same(directory, found, json.loads(_describe(config, chosen, digests)))
        elif not overwrite:
            raise RunError(
                f"{directory} already holds a population: resume goes on with it, and overwrite "
                "replaces it"
            )
        else:
            with says_not_writable(directory):
                # First: if the rest breaks off, it must not be taken for that of another search.
                (directory / SEARCH).unlink(missing_ok=True)
                (directory / REPORT).unlink(missing_ok=True)
            for number in range(len(found["members"])):
                remove_run(member_path(directory, number))
    else:
        _refuse_foreign(directory, resume)
    write_population(directory, config, chosen, digests)
    return directory


def _refuse_foreign(directory: Path, resume: bool) -> None:
    """Refuses a directory with files that the population would replace."""
    members = [] if resume else (directory / MEMBERS).glob("*")
    held = [path for path in members if any(path.glob("*"))]
    held += [directory / name for name in (REPORT, SEARCH) if (directory / name).exists()]
    if held:
        raise RunError(
            f"expected a directory for a new population, found {held[0]}, which belongs to no "
            "population: move it, or name another directory"
        )


def _check_same(directory: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    # An older version may have had fewer settings, whose defaults are what it did.
    settings = dataclasses.asdict(TrainConfig.from_json(json.dumps(found["config"])))
    found = {"teacher": None, "search": None, **found, "config": settings}
    parts = {"config": "settings", "members": "members", "data": "data set"}
    for part, what in {**parts, "teacher": "teacher", "search": "search"}.items():
        if found[part] != expected.get(part):
            raise RunError(
                f"expected the population to resume in {directory} to have the same {what}, found "
                "others"
            )


def _describe(config: TrainConfig, chosen: Rows, digests: Digests, rows: Rows | None = None) -> str:
    settings = dataclasses.asdict(config)
    content = {"config": settings, **digests, "members": chosen, "rows": rows}
    return json.dumps(content, indent=2) + "\n"


def write_population(
    directory: Path, config: TrainConfig, chosen: Rows, digests: Digests, rows: Rows | None = None
) -> None:
    """Writes the description of a population.

    Args:
        directory: its directory.
        config: the settings that the members have in common.
        chosen: the settings of each member.
        digests: fingerprints of the data set, `data`, and of the teacher if any, `teacher`; and the
            search if any, `search`.
        rows: the table of the finished members; None while it is trained.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_text_atomically(directory / POPULATION, _describe(config, chosen, digests, rows))
    except OSError as error:
        raise RunError(f"expected to write the population to {directory}: {error}") from error


def read_population(directory: Path) -> dict[str, Any]:
    """Reads the description of a population: what `write_population` wrote.

    Args:
        directory: its directory.

    Returns:
        The content of the file, with the keys `config`, `data`, `members` and `rows`, which is None
        if the population is not finished; and `teacher` and `search`, if it has them.

    Raises:
        RunNotFoundError: there is none.
        RunError: it is damaged.
    """
    path = directory / POPULATION
    if not path.is_file():
        raise RunNotFoundError(f"expected a population in {directory}, found no {POPULATION}")
    try:
        content = read_json(path)
        _check_content(content)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise RunError(f"expected a population in {path}, found something else: {error}") from error
    return content


def _check_content(content: Any) -> None:
    """Raises an exception unless this is what `write_population` writes."""
    members, rows = content["members"], content["rows"]
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    fits = isinstance(content["config"], dict) and isinstance(content["data"], str)
    fits &= all(isinstance(content.get(name, ""), str) for name in ("teacher", "search"))
    fits &= isinstance(members, list) and all(isinstance(member, dict) for member in members)
    fits = fits and all(
        member.keys() == members[0].keys() <= known
        and all(isinstance(value, str | int | float | None) for value in member.values())
        for member in members
    )
    if fits and rows is not None:
        fits &= [row["member"] for row in rows] == list(range(len(members)))
        for row in rows:
            fits &= isinstance(row["group"], int) and "test_accuracy" in row
            fits &= row["error"] is None or isinstance(row["error"], str)
    if not fits:
        raise ValueError("its parts do not fit together")
