"""SHA-256 digests of what a run learns from: its data set, and its teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from mnistjax.data import Dataset
from mnistjax.errors import RunError
from mnistjax.runs.sealed import flatten_named
from mnistjax.runs.trained import TrainedModel


def fingerprint(dataset: Dataset) -> str:
    """Returns the SHA-256 of all images and labels of a data set, and of their shapes.

    Args:
        dataset: the data set.
    """
    splits = (dataset.train, dataset.test)
    return _digest(("", array) for split in splits for array in (split.images, split.labels))


def teacher_fingerprint(teacher: TrainedModel | None) -> str | None:
    """Returns the SHA-256 of all weights of a network, and of their names and shapes.

    Args:
        teacher: the network; None gives None.
    """
    return _digest(flatten_named(teacher.variables).items()) if teacher else None


def fingerprints(dataset: Dataset, teacher: TrainedModel | None) -> dict[str, str]:
    """Returns the fingerprints of a data set, `data`, and of a teacher if there is one, `teacher`.

    Args:
        dataset: the data set.
        teacher: the network that teaches, or None.
    """
    taught = teacher_fingerprint(teacher)
    return {"data": fingerprint(dataset)} | ({"teacher": taught} if taught else {})


def _digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update((name + repr((array.shape, array.dtype.str))).encode())
        # As bytes, because not every dtype of JAX has a buffer.
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_teacher(recorded: str | None, found: str | None, where: object) -> None:
    """Checks that a run goes on with the teacher that it had, or with none as before.

    Args:
        recorded: fingerprint of its teacher; None if it had none.
        found: that of the teacher that is given, or None.
        where: the run or the file that records it, for the error message.

    Raises:
        RunError: they differ.
    """
    if recorded != found:
        words = [f"the teacher of SHA-256 {it}" if it else "no teacher" for it in (recorded, found)]
        raise RunError(f"expected {words[0]}, as {where} had, found {words[1]}")
