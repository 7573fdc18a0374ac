"""Descriptions of a run, before it starts and after it has finished."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from typing import Any

from mnistjax.runs.plan import Plan
from mnistjax.runs.progress import Progress
from mnistjax.training import Metrics

_PACKAGES = (
    *("mnistjax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets"),
    "scikit-learn",  # It draws the validation images.
)

# What clocks say: two runs that are otherwise equal differ in these.
CLOCKS = ("train_seconds", "images_per_second", "compile_seconds", "total_seconds")


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Returns the description of a run before it starts.

    Args:
        plan: the run.
    """
    device = plan.placement.devices[0]
    cores = f"cpu, {os.cpu_count()} cores"
    return {
        "recipe": plan.config.recipe,
        "model": plan.config.model,
        "parameters": plan.parameters,
        "dataset": plan.dataset.info.name,
        "source": plan.dataset.source,
        "seed": plan.config.seed,
        "train_count": len(plan.kept),
        "validation_count": len(plan.validation) if plan.validation else 0,
        "test_count": len(plan.dataset.test),
        "batch_size": plan.config.batch_size,
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "device": cores if device.platform == "cpu" else device.device_kind,
        "device_count": len(plan.placement.devices),
        "process_count": plan.placement.process_count,
        "images": plan.placement.images,
        "cache_bytes": plan.placement.cache_bytes,
        **_describe_teacher(plan),
    }


def _describe_teacher(plan: Plan) -> dict[str, Any]:
    if plan.teacher is None:
        return {}
    return {"teacher": plan.teacher.model.name, "teacher_sha256": plan.teacher_sha256}


def describe_result(plan: Plan, progress: Progress, test: Metrics) -> dict[str, Any]:
    """Returns the results of a run.

    Args:
        plan: the run.
        progress: its progress when training is over.
        test: the metrics of the test images.

    Returns:
        The content of `result.json` without the seconds of compilation and of the whole run.
        `train_accuracy` is the running accuracy of the epoch whose state is kept.
    """
    step, history = int(progress.kept.step), progress.history
    kept = next(row for row in history if row["step"] == step)
    train_seconds = sum(row["train_seconds"] for row in history)
    images = sum(row["images_per_second"] * row["train_seconds"] for row in history)
    return {
        **describe_plan(plan),
        "versions": package_versions(),
        "epochs": kept["epoch"],
        "steps": step,
        "train_accuracy": kept["train_accuracy"],
        "train_loss": kept["train_loss"],
        "validation_accuracy": kept["validation_accuracy"],
        "validation_loss": kept["validation_loss"],
        **prefix_metrics("test", test),
        "train_seconds": train_seconds,
        "images_per_second": images / train_seconds,
    }


def describe_epoch(
    plan: Plan, step: int, metrics: Metrics, seconds: float, validation: Metrics | None
) -> dict[str, Any]:
    """Returns the row of an epoch in `metrics.jsonl`.

    Args:
        plan: the run.
        step: number of updates so far.
        metrics: the metrics of the training images in this epoch.
        seconds: its training time.
        validation: the metrics of the validation images, or None.
    """
    row = {
        "epoch": step / plan.steps_per_epoch,
        "step": step,
        **prefix_metrics("train", metrics),
        "validation_loss": None,
        "validation_accuracy": None,
        "train_seconds": seconds,
        "images_per_second": int(metrics.count) / seconds,
    }
    return row | (prefix_metrics("validation", validation) if validation else {})


def prefix_metrics(split: str, metrics: Metrics) -> dict[str, float]:
    """Returns `{split}_loss` and `{split}_accuracy`, in double precision.

    Args:
        split: "train", "validation" or "test".
        metrics: its metrics.
    """
    return {f"{split}_{name}": value for name, value in metrics.summary().items()}


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect the results of a run."""
    return dict(_versions())


@functools.cache  # Every checkpoint records them, and each is a file to read.
def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions}
