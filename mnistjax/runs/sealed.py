"""Arrays on disk in safetensors files that contain a SHA-256 digest of their own bytes.

Any safetensors reader opens such a file. The digest is an entry of its metadata, and covers all of
the file with the digest itself replaced by zeros.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnistjax.atomic import atomic_path
from mnistjax.errors import RunError
from mnistjax.models import PyTree

_BLANK = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
# Far more than any network here needs. Parsed JSON takes many times its size in memory.
_MAX_HEADER_BYTES = 1 << 20


def write_sealed(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and metadata to a file, atomically, with a digest of all its bytes.

    Args:
        path: the file.
        tensors: the arrays by name.
        metadata: text by name; `format` says what the file holds.

    Raises:
        OSError: the file cannot be written.
    """
    content = seal(tensors, metadata)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def seal(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a file of `write_sealed`.

    Args:
        tensors: the arrays by name.
        metadata: text by name; `format` says what it is.
    """
    from safetensors.numpy import save

    blank = save(dict(tensors), {**metadata, "sha256": _BLANK})
    digest = hashlib.sha256(blank).hexdigest()
    # Only the header is searched: the arrays may hold the same bytes by chance.
    end = 8 + int.from_bytes(blank[:8], "little")
    header = blank[:end].replace(f'"sha256":"{_BLANK}"'.encode(), f'"sha256":"{digest}"'.encode())
    return header + memoryview(blank)[end:]


def read_sealed(
    path: Path, formats: Sequence[str], *, unsealed: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads what `write_sealed` wrote; the digest is verified before anything else is used.

    Args:
        path: the file.
        formats: the values of `format` that the caller can read.
        unsealed: those that were written without a digest.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        RunError: the file cannot be read, is damaged, or is of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"expected a safetensors file, found {path}: {error}") from error
    return unseal(content, formats, path, unsealed=unsealed)


def unseal(
    content: bytes, formats: Sequence[str], path: Path, *, unsealed: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns arrays and metadata of what `seal` returned, as `read_sealed` does.

    Args:
        content: the bytes.
        formats: the values of `format` that the caller can read.
        path: where they come from, for error messages.
        unsealed: formats without a digest.

    Raises:
        RunError: the content is damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = _header(content)
        sealed = _verify(content, len(header), path)
        metadata = _metadata(header)
        _check_format(metadata.get("format"), formats if sealed else unsealed, formats, path)
        return load(content), metadata
    except KeyError as error:  # Such as BF16.
        raise RunError(f"NumPy has no dtype for the arrays of {error} in {path}") from error
    except (SafetensorError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"expected a safetensors file, found {path}: {error}") from error


def _header(content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError(f"it ends after {len(content):,} bytes, within its header")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes, more than {_MAX_HEADER_BYTES:,}")
    return content[8 : 8 + length]


def _verify(content: bytes, header_length: int, path: Path) -> bool:
    """Checks the digest, and returns whether there is one."""
    found = _DIGEST.search(content, 8, 8 + header_length)
    if found is None:
        return False
    digest = hashlib.sha256(memoryview(content)[: found.start(1)])
    digest.update(_BLANK.encode())
    digest.update(memoryview(content)[found.end(1) :])
    if digest.hexdigest().encode() != found[1]:
        raise RunError(f"{path} is damaged: its content does not have the SHA-256 that it records")
    return True


def _metadata(header: bytes) -> dict[str, str]:
    found = json.loads(header)
    metadata = found.get("__metadata__", {}) if isinstance(found, dict) else None
    if not isinstance(metadata, dict):
        raise TypeError("its metadata is no JSON object")
    return {str(name): str(value) for name, value in metadata.items()}


def _check_format(
    found: str | None, readable: Sequence[str], formats: Sequence[str], path: Path
) -> None:
    if found in readable:
        return
    if found in formats:
        raise RunError(f"{path} is damaged: it is of format {found} but records no SHA-256")
    stem, _, number = (found or "").rpartition("-")
    newest = formats[-1].rpartition("-")
    newer = stem == newest[0] and number.isdigit() and int(number) > int(newest[2])
    hint = "; a newer version of mnistjax wrote it" if newer else ""
    raise RunError(
        f"expected format {' or '.join(formats)}, found {found or 'none'}, in {path}{hint}"
    )


def flatten_named(tree: PyTree) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree as NumPy arrays, by their path in it, for example `params/bias`.

    A PRNG key is represented by its data.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): np.asarray(_plain(leaf)) for path, leaf in leaves}


def unflatten_named(template: PyTree, tensors: Mapping[str, np.ndarray], where: str) -> PyTree:
    """Returns arrays as a tree, or says which of them does not fit.

    Args:
        template: a tree of arrays, or of their shapes and dtypes.
        tensors: the arrays by their path in the tree, as from `flatten_named`.
        where: the file, for error messages.

    Raises:
        RunError: an array is missing, superfluous, or of another shape or dtype.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [_name(path) for path, _ in leaves]
    for name in sorted(set(names) ^ set(tensors)):
        raise RunError(f"{where} {'lacks' if name in names else 'has an unexpected'} {name}")
    return jax.tree.unflatten(
        structure,
        [
            _restore(leaf, tensors[name], name, where)
            for name, (_, leaf) in zip(names, leaves, strict=True)
        ],
    )


def _restore(leaf: Any, found: np.ndarray, name: str, where: str) -> jax.Array:
    plain = jax.eval_shape(_plain, leaf)
    if found.shape != plain.shape or found.dtype != plain.dtype:
        raise RunError(
            f"expected {name} as {plain.dtype} {plain.shape}, "
            f"found {found.dtype} {found.shape} in {where}"
        )
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.device_put(found))
    return jax.device_put(found)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
