"""Repeats a run from its settings, and compares the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mnistjax.data import Dataset
from mnistjax.errors import RunError
from mnistjax.runs.callbacks import Callback
from mnistjax.runs.fingerprints import check_teacher, fingerprint, teacher_fingerprint
from mnistjax.runs.loop import fit
from mnistjax.runs.result import CLOCKS, package_versions
from mnistjax.runs.sealed import flatten_named
from mnistjax.runs.trained import TrainedModel


def repeat(
    trained: TrainedModel,
    dataset: Dataset,
    *,
    teacher: TrainedModel | None = None,
    callbacks: Sequence[Callback] = (),
) -> str | None:
    """Trains a network again with the settings of its run, and compares every bit of the results.

    Args:
        trained: the network of a finished run, from `load_run`.
        dataset: the data set that it was trained on.
        teacher: the network that taught it; None if none did.
        callbacks: callbacks of the second run, which writes no files.

    Returns:
        None if the two runs are equal: every number of the history and of the result except for
        times, and every bit of the weights. Otherwise a line that says where they first differ.

    Raises:
        RunError: the run is not finished, or several processes trained it, or it was trained side
            by side with others or took over from another in a search, or the data set or the
            teacher is not the one that it was trained with.
        ConfigError: there are fewer devices than it was trained on.

    >>> import mnistjax
    >>> digits = mnistjax.load_dataset("digits")
    >>> config = mnistjax.get_recipe("softmax").replace(steps=3)
    >>> repeat(mnistjax.fit(config, digits).trained, digits) is None
    True
    """
    if trained.result is None:
        raise RunError("expected a finished run to repeat, found one without a result")
    recorded, found = trained.result.get("dataset_sha256"), fingerprint(dataset)
    if recorded is not None and recorded != found:
        raise RunError(
            f"expected the data set that the run was trained on, of SHA-256 {recorded}, "
            f"found {found}"
        )
    taught = trained.result.get("teacher_sha256")
    check_teacher(taught, teacher_fingerprint(teacher), "the run to repeat")
    if (processes := trained.result.get("process_count", 1)) != 1:
        raise RunError(f"expected a run of one process to repeat, found one of {processes}")
    for row in reversed(trained.history):  # The one that it took over from may have done so, too.
        if "taken_over_from" in row:
            raise RunError(
                "expected a run of its own to repeat, found a member of a search that took over "
                f"from member {row['taken_over_from']} after epoch {row['epoch']:g}"
            )
    if (beside := trained.result.get("side_by_side", 1)) > 1:
        raise RunError(
            f"expected a run of one network to repeat, found one of {beside} side by side, whose "
            "bits depend on all of them"
        )
    devices = trained.result.get("device_count", 1)
    options = {"devices": devices, "teacher": teacher, "callbacks": callbacks}
    return next(_differences(trained, fit(trained.config, dataset, **options).trained), None)


def describe_environment_change(trained: TrainedModel) -> str:
    """Returns which packages have another version now than when a run was trained; may be empty.

    Args:
        trained: the network of a finished run.
    """
    then = (trained.result or {}).get("versions", {})
    now = package_versions()
    changed = [
        f"{name} {then[name]} then and {now.get(name)} now"
        for name in then
        if then[name] != now.get(name)
    ]
    return ", ".join(changed)


def _differences(one: TrainedModel, other: TrainedModel) -> Iterator[str]:
    """Yields where two runs differ, in the order of training."""
    for number, rows in enumerate(zip(one.history, other.history, strict=False), start=1):
        yield from _differing_entries(f"epoch {number}", *rows)
    if len(one.history) != len(other.history):
        yield f"number of epochs: {len(one.history)} then and {len(other.history)} now"
    then, now = flatten_named(one.variables), flatten_named(other.variables)
    for name in then:
        differing = int(np.sum(~_same_bits(then[name], now[name])))
        if differing:
            yield f"weights: {differing} of {then[name].size} numbers of {name}"
    results = [
        {name: value for name, value in (run.result or {}).items() if name.startswith("test_")}
        for run in (one, other)
    ]
    yield from _differing_entries("result", *results)


def _same_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    # A comparison of floats would take 0.0 for -0.0, and no NaN for itself.
    one, other = (np.atleast_1d(array).view(f"u{array.itemsize}") for array in (one, other))
    return one == other


def _differing_entries(
    where: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    for name in then:
        if name not in CLOCKS and then[name] != now.get(name):
            yield f"{where}: {name} was {then[name]!r} and is {now.get(name)!r}"
