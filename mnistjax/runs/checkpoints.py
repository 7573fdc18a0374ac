"""Checkpoints: the progress of a run on disk, verified before it is used.

One safetensors file holds one `Progress`: its arrays, its history as JSON text, and metadata that
says which run it belongs to. `read_sealed` verifies its SHA-256 digest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mnistjax.errors import NonFiniteLossError, RunError
from mnistjax.files import parse_json
from mnistjax.runs import processes
from mnistjax.runs.checkpoint_policy import CheckpointPolicy
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.directory import CONFIG, RunDirectory, checkpoint_file, find_checkpoints
from mnistjax.runs.fingerprints import check_teacher
from mnistjax.runs.plan import Plan
from mnistjax.runs.progress import Progress
from mnistjax.runs.result import describe_plan, package_versions
from mnistjax.runs.sealed import (
    flatten_named,
    read_sealed,
    seal,
    unflatten_named,
    unseal,
    write_sealed,
)
from mnistjax.training import on_one_device

_FORMAT = "mnistjax-checkpoint-1"
_HISTORY = "history"
# With the default interval, saving takes at most one part in this many of the training time.
_SHARE = 50
# The fields of `Progress` that are saved as JSON.
_NUMBERS = {"done": int, "seconds": float, "stopped": bool}

_LOG = logging.getLogger(__name__)


def save_checkpoint(directory: RunDirectory, plan: Plan, progress: Progress, data: str) -> None:
    """Writes the progress of a run to one file, atomically.

    Args:
        directory: the run directory.
        plan: the run.
        progress: its progress.
        data: fingerprint of the data set.

    Raises:
        NonFiniteLossError: the weights hold NaN or infinity; the older checkpoints stay, and so
            does a run that is to be overwritten.
        OSError: the file cannot be written.
    """
    tensors, metadata = _contents(plan, progress, data)
    _check_finite(tensors, progress.step(plan))
    directory.begin()
    write_sealed(checkpoint_file(directory.path, progress.step(plan)), tensors, metadata)


def _contents(
    plan: Plan, progress: Progress, data: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    trees = {"state": progress.state, "metrics": progress.metrics}
    if progress.best is not None:
        trees["best"] = progress.best
    tensors = flatten_named(on_one_device(trees))
    tensors[_HISTORY] = np.frombuffer(json.dumps(progress.history).encode(), np.uint8)
    metadata = {
        "format": _FORMAT,
        "config": plan.config.to_json(),
        "data": data,
        "environment": json.dumps(_environment(plan)),
        "progress": json.dumps({name: getattr(progress, name) for name in _NUMBERS}),
    }
    if plan.teacher_sha256 is not None:
        metadata["teacher"] = plan.teacher_sha256
    return tensors, metadata


def share_progress(
    plan: Plan, progress: Progress | None, template: Progress, data: str
) -> Progress | None:
    """Sends the progress of a run from the first process to all others, as a checkpoint.

    Args:
        plan: the run.
        progress: what the first process has restored; ignored in the others.
        template: the progress at step 0, which gives shapes and dtypes.
        data: fingerprint of the data set.

    Returns:
        The progress of the first process.
    """
    mine = seal(*_contents(plan, progress, data)) if progress else b""
    content = processes.share(mine)
    if not content:
        return None
    where = Path("what process 0 sent")
    return _restore(where, *unseal(content, [_FORMAT], where), template)


def _check_finite(tensors: Mapping[str, np.ndarray], step: int) -> None:
    for name, tensor in tensors.items():
        # An optimizer may hold infinity, as adam does where a gradient squared overflows.
        if name.startswith(("state/opt_state/", "best/")):
            continue
        if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
            raise NonFiniteLossError(f"{name} holds NaN or infinity after step {step}")


def restore_latest(
    workdir: Path, plan: Plan, template: Progress, data: Callable[[], str]
) -> Progress | None:
    """Reads the newest checkpoint that is whole; a damaged newer one is named in a warning.

    Args:
        workdir: the run directory.
        plan: the run that is to go on.
        template: its progress at step 0, which gives shapes and dtypes.
        data: returns the fingerprint of its data set.

    Returns:
        The progress, or None if the run has no checkpoint.

    Raises:
        RunError: no checkpoint is whole, or the run has other settings or data, or another teacher,
            than this one.
    """
    files = find_checkpoints(workdir)
    for file in files:
        try:
            tensors, metadata = read_sealed(file, [_FORMAT])
        except RunError as error:
            _LOG.warning("an older checkpoint is tried: %s", error)
            continue
        try:
            _check_same_run(file, metadata, plan, data())
            return _restore(file, tensors, metadata, template)
        except RunError:
            raise
        # A digest, but not our content.
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"expected a checkpoint in {file}: {error!r}") from error
    if files:
        raise RunError(f"none of the {len(files)} checkpoints in {workdir} can be used")
    # It may have been killed before its first checkpoint, and starts over.
    if (config := workdir / CONFIG).exists():
        _refuse_other_settings(config, config.read_text(encoding="utf-8"), plan)
    return None


def _restore(
    file: Path, tensors: dict[str, np.ndarray], metadata: Mapping[str, str], template: Progress
) -> Progress:
    expected = {"state": template.state, "metrics": template.metrics}
    if any(name.startswith("best/") for name in tensors):
        expected["best"] = template.state
    history = tensors.pop(_HISTORY)
    trees = unflatten_named(expected, tensors, str(file))
    numbers = parse_json(metadata["progress"])
    for name, kind in _NUMBERS.items():
        if not isinstance(numbers[name], kind):
            raise TypeError(f"{name} is {numbers[name]!r}")
    return Progress(
        **trees,
        history=tuple(parse_json(history.tobytes())),
        **{name: numbers[name] for name in _NUMBERS},
    )


def _check_same_run(file: Path, metadata: Mapping[str, str], plan: Plan, data: str) -> None:
    """Refuses another run's checkpoint, and warns of other versions of packages."""
    _refuse_other_settings(file, metadata["config"], plan)
    if metadata["data"] != data:
        raise RunError(
            f"the data set is not the one that {file} was trained on: its content differs"
        )
    check_teacher(metadata.get("teacher"), plan.teacher_sha256, file)
    here = _environment(plan)
    for name, then in parse_json(metadata["environment"]).items():
        if then != here.get(name):
            _LOG.warning(
                "the run began with %s %s and goes on with %s: its result may differ in the last "
                "bits from that of a run without interruption",
                *(name, then, here.get(name)),
            )


def describe_identity(plan: Plan, data: str) -> dict[str, str]:
    """Returns what all processes that train one network must have in common.

    Args:
        plan: the run.
        data: fingerprint of the data set.
    """
    described = describe_plan(plan)
    return {
        "settings": plan.config.to_json(),
        "data": data,
        "teacher": str(plan.teacher_sha256),
        "versions": str(package_versions()),
        "devices": f"{described['device_count']} {described['images']}",
        "caches": str(described["cache_bytes"]),
    }


def _environment(plan: Plan) -> dict[str, str]:
    """Returns what the last bits of a result depend on besides settings and data."""
    described = describe_plan(plan)
    devices = {name: str(described[name]) for name in ("device", "device_count", "cache_bytes")}
    return {**package_versions(), **devices}


def _refuse_other_settings(file: Path, text: str, plan: Plan) -> None:
    try:
        # An older version may have had fewer settings, whose defaults are what it did.
        found = dataclasses.asdict(TrainConfig.from_json(text))
    except ValueError as error:
        raise RunError(f"the settings in {file} cannot be used: {error}") from error
    expected = dataclasses.asdict(plan.config)
    differing = [
        f"{name} {found[name]!r} there and {expected[name]!r} here"
        for name in sorted(expected)
        if found[name] != expected[name]
    ]
    if differing:
        raise RunError(f"{file} belongs to a run with other settings: {', '.join(differing)}")


class Keeper:
    """Saves the checkpoints of a run by a policy, and removes those that it does not keep."""

    def __init__(
        self,
        directory: RunDirectory,
        plan: Plan,
        policy: CheckpointPolicy,
        data: Callable[[], str],
        *,
        start: int = 0,
    ) -> None:
        """Begins to count time.

        Args:
            directory: the run directory.
            plan: the run.
            policy: when to save and what to keep.
            data: returns the fingerprint of the data set.
            start: the step from which the run goes on.
        """
        # Later ones are damaged, or the run would go on from them.
        self._damaged = [file for file in find_checkpoints(directory.path) if _step(file) > start]
        self._directory, self._plan, self._policy, self._data = directory, plan, policy, data
        self._number, self._unit = policy.interval
        self._saved_at, self._saved_step = time.perf_counter(), -1
        self._cost = 0.0

    def next_step(self, step: int) -> int:
        """Returns the next step after which a checkpoint is due.

        It is the last step of the run if checkpoints are not counted in steps.
        """
        if self._unit != "step":
            return self._plan.steps
        every = int(self._number)
        return (step // every + 1) * every

    def offer(self, progress: Progress) -> None:
        """Saves the progress if a checkpoint is due."""
        if self._is_due(progress):
            self.save(progress)

    def _is_due(self, progress: Progress) -> bool:
        step = progress.step(self._plan)
        if self._policy.keep_best and progress.done == 0 and step == progress.best_step:
            return True
        if self._unit == "step":
            return step % int(self._number) == 0
        if self._unit == "epoch":
            return progress.done == 0 and len(progress.history) % int(self._number) == 0
        interval = self._number
        if self._policy.every is None:
            interval = max(interval, _SHARE * self._cost)
        return time.perf_counter() - self._saved_at >= interval

    def save(self, progress: Progress) -> bool:
        """Saves the progress unless it is saved already, and returns whether it is on disk.

        Training goes on where the disk is full or cannot be written to. Weights with NaN or
        infinity are not saved: their loss ends the run in the next step.
        """
        step = progress.step(self._plan)
        if step == self._saved_step:
            return True
        begin = time.perf_counter()
        try:
            save_checkpoint(self._directory, self._plan, progress, self._data())
            self._saved_step = step
            with contextlib.suppress(OSError):  # The next checkpoint tries again.
                self._remove_old(progress)
        except OSError as error:
            self._directory.warn("a checkpoint", error)
            return False
        except NonFiniteLossError:
            return False
        finally:
            self._saved_at = time.perf_counter()
            self._cost = self._saved_at - begin
        return True

    def _remove_old(self, progress: Progress) -> None:
        newest = checkpoint_file(self._directory.path, self._saved_step)
        kept = {newest}
        if self._policy.keep_best:
            kept.add(checkpoint_file(self._directory.path, progress.best_step))
        # What is damaged must not count among those that are kept.
        for file in self._damaged:
            if file != newest:
                file.unlink(missing_ok=True)
        self._damaged = []
        for file in find_checkpoints(self._directory.path)[self._policy.keep :]:
            if file not in kept:
                file.unlink(missing_ok=True)


def _step(file: Path) -> int:
    return int(file.stem.removeprefix("step-"))
