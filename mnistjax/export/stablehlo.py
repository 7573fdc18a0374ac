"""StableHLO: a network as a program that JAX runs without this package."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp

from mnistjax.errors import ConfigError
from mnistjax.export.origin import ORIGIN, origin_json
from mnistjax.export.writing import (
    LOGITS,
    PROBABILITIES,
    InputDtype,
    check_input_dtype,
    writing_file,
)
from mnistjax.runs import TrainedModel
from mnistjax.training import scale_pixels

PLATFORMS = ("cpu", "cuda", "tpu")
ORIGIN_MEMBER = f"{ORIGIN}.json"
# A dimension variable of JAX is at least 1, and a batch may be empty.
_BATCH = "n - 1"
_LOCATION_SETTINGS = {
    "jax_traceback_in_locations_limit": 0,
    # JAX 0.7 keeps one line all the same: without the folder of its file.
    "jax_hlo_source_file_canonicalization_regex": r".*[/\\]",
}


def write_stablehlo(
    trained: TrainedModel,
    path: str | os.PathLike[str],
    *,
    input_dtype: InputDtype = "uint8",
    probabilities: bool = False,
) -> Path:
    """Writes a network as a StableHLO program for CPU, CUDA and TPU, in one file with its weights.

    Running it needs only the packages jax and flatbuffers:
    `jax.export.deserialize(bytearray(Path(path).read_bytes())).call(images)`, for any number of
    images. The program is compiled once for each number. It computes in the dtype of the network.

    JAX reads files that it wrote itself or in a version that was released at most six months
    before, not those of newer versions. The origin of the network (see `describe_origin`) is in the
    file, too: at its end is a ZIP archive with the member `origin.json`, which JAX ignores and any
    ZIP reader finds.

    Args:
        trained: the network, of any kind; or an ensemble.
        path: the file; it is replaced if it exists.
        input_dtype: "uint8" for images from 0 to 255, or "float32" for pixels in [0, 1].
        probabilities: whether to return probabilities instead of logits.

    Returns:
        The file. Its program maps images [N, H, W, C] to float32 [N, num_classes].

    Raises:
        ConfigError: the network cannot be exported with a free batch size, `input_dtype` is
            unknown, or the path cannot be used.
        RunError: the file cannot be written.

    >>> import tempfile, mnistjax, numpy as np
    >>> digits = mnistjax.load_dataset("digits")
    >>> trained = mnistjax.fit(mnistjax.get_recipe("softmax").replace(steps=20), digits).trained
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_stablehlo(trained, f"{folder}/softmax.stablehlo")
    ...     program = jax.export.deserialize(bytearray(file.read_bytes()))
    >>> program.call(np.zeros((3, 28, 28, 1), np.uint8)).shape
    (3, 10)
    """
    check_input_dtype(input_dtype)
    content = _export(trained, input_dtype, probabilities).serialize()
    with writing_file(path, "StableHLO") as (target, temporary):
        temporary.write_bytes(content)
        # Appended, because flatbuffers are read from the start and ZIP archives from the end. The
        # date is a constant: the same network gives the same bytes.
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            member = zipfile.ZipInfo(ORIGIN_MEMBER)
            archive.writestr(member, origin_json(trained), zipfile.ZIP_DEFLATED)
    return target


def _export(
    trained: TrainedModel, input_dtype: InputDtype, probabilities: bool
) -> jax.export.Exported:
    # Without what says on which devices they are, which would become a part of the program.
    variables = jax.tree.map(jnp.asarray, jax.device_get(trained.variables))

    def run(images: jax.Array) -> jax.Array:
        logits = trained.model.apply(variables, scale_pixels(images))[0]
        return jax.nn.softmax(logits) if probabilities else logits

    run.__name__ = PROBABILITIES if probabilities else LOGITS
    (batch,) = jax.export.symbolic_shape(_BATCH)
    images = jax.ShapeDtypeStruct((batch, *trained.info.image_shape), input_dtype)
    try:
        with _no_paths():
            return jax.export.export(jax.jit(run), platforms=PLATFORMS)(images)
    except Exception as error:  # Whatever the code of a network raises for such a size.
        raise ConfigError(
            f"{trained.model.name!r} cannot be exported with a free batch size (a network may ask "
            f"for images.shape[0], but not for len(images) or a number): {error}"
        ) from error


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
    """Leaves out of a program in which line of which file of this machine it was written."""
    before = {name: getattr(jax.config, name) for name in _LOCATION_SETTINGS}
    try:
        for name, value in _LOCATION_SETTINGS.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
