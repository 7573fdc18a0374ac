"""Decoded arrays on disk, memory-mapped and verified, so that a second load takes milliseconds.

A cache is a folder of `.npy` files and a manifest that names the files it was decoded from. It is
published by one rename, so readers and other writers meet a whole cache or none. One that is
stale, damaged or unreadable is passed over and written anew; a cache is never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]

# Part of every manifest: a change of format or of decoding makes older caches stale.
_FORMAT = 1
_MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 3600.0


def cached_arrays(
    name: str, data_dir: Path, files: Sequence[Path], decode: Callable[[], Arrays]
) -> Arrays:
    """Returns decoded arrays from the cache, or decodes and caches them.

    Args:
        name: the data set's name.
        data_dir: the folder that the data set belongs to; the cache lies in its `.mnistjax`, or
            in the user's cache directory if that cannot be written, or nowhere.
        files: what `decode` reads; a change of a name, size or time makes the cache stale.
        decode: makes the arrays.

    Returns:
        The arrays by name; memory-mapped read-only when they come from a cache.
    """
    key = {"format": _FORMAT, "name": name, "sources": [_fingerprint(file) for file in files]}
    folders = cache_folders(name, data_dir)
    for folder in folders:
        arrays = _read(folder, key)
        if arrays is not None:
            return arrays
    decoded = decode()
    for folder in folders:
        # Not the folder itself, which another writer may be moving aside at this moment.
        if is_writable(folder.parent) and _write(folder, key, decoded):
            break
    return decoded


def cache_folders(name: str, data_dir: Path) -> tuple[Path, Path]:
    """Returns where the cache of a data set may lie: beside the data, or in the user's cache."""
    slug = name.replace("/", "-")
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return data_dir / ".mnistjax" / slug, user_cache_dir() / f"{slug}-{digest}"


def user_cache_dir() -> Path:
    """Returns the folder of this package in the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "mnistjax"


def is_writable(folder: Path) -> bool:
    """Tells whether files may be put into a folder, which need not exist yet.

    A folder without any write permission is taken for one that shall stay as it is, even where
    the user (root) could write into it.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable_bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return (
        existing.is_dir()
        and bool(existing.stat().st_mode & writable_bits)
        and os.access(existing, os.W_OK | os.X_OK)
    )


def _fingerprint(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read(folder: Path, key: Mapping[str, Any]) -> Arrays | None:
    """Returns the verified arrays of a cache, or None if it is missing, stale or damaged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["key"] != key:
            return None
        return {name: _open(folder, name, entry) for name, entry in manifest["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open(folder: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    path = folder / f"{name}.npy"
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise ValueError(f"checksum of {path}")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if (list(array.shape), array.dtype.name) != (entry["shape"], entry["dtype"]):
        raise ValueError(f"shape of {path}")
    return array


def _write(folder: Path, key: Mapping[str, Any], arrays: Arrays) -> bool:
    """Publishes a cache; returns False where that is impossible."""
    try:
        with _temporary_sibling(folder) as temporary:
            manifest = {
                "key": key,
                "arrays": {name: _save(temporary, name, array) for name, array in arrays.items()},
            }
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _replace_folder(temporary, folder)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _temporary_sibling(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    temporary = folder.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    temporary.mkdir()  # not mkdtemp, whose folders nobody else may read
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Removes what a killed process left half-written."""
    for old in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)


def _save(folder: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    np.save(path, array, allow_pickle=False)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": digest}


def _replace_folder(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`, moving an older one aside (a rename replaces no full folder)."""
    with _temporary_sibling(folder) as aside:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, aside / "old")
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.is_dir():  # else another writer was quicker: its cache stays
                raise
