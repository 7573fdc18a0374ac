"""Writing the page to draw on: it runs the network in a browser, without a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mnistjax.atomic import write_text_atomically
from mnistjax.errors import ConfigError, RunError
from mnistjax.export import Conv, Dense, Layer, MaxPool, Relu
from mnistjax.files import user_path
from mnistjax.models import count_parameters
from mnistjax.report.packing import Dtype, choose_dtype, drawable_layers, pack_network
from mnistjax.report.rendering import render
from mnistjax.runs import TrainedModel, package_versions
from mnistjax.runs.directory import DRAW_PAGE

_SCRIPTS = ("network.js", "planes.js", "paper.js", "ink.js", "pad.js", "draw.js")
# Of images of this size, MNIST and its family are centered ink. These are not.
_MNIST_SHAPE, _NOT_INK = (28, 28, 1), {"fashion_mnist"}
_LONG_NAME = 3
_TIMES = "\N{MULTIPLICATION SIGN}"
_MANY_CLASSES = 16


def render_draw_page(trained: TrainedModel, *, dtype: Dtype | None = None) -> str:
    """Renders a page on which one draws, and which shows what the network makes of it.

    The page holds the network and runs it itself: it works from disk and from a server, loads
    nothing, and sends nothing. It shows the image that the network sees, the probability of each
    class, the activations of each layer, and the gradient of the score of a class. Drawings and
    pictures for a network of 28x28 pixels are prepared as `mnistjax.reading` does. The same network
    gives the same page.

    Args:
        trained: the network, an `MLP` or a `CNN` for grayscale images.
        dtype: the dtype of the weights in the page, "float32", "float16" or "int8"; if None, the
            most exact one with which the page stays small. `round_weights` returns the network that
            the page then computes.

    Returns:
        The page, HTML.

    Raises:
        ConfigError: the layers of the network are not known, its images are not grayscale or are
            larger than 256 pixels, it has more than 64 classes, or a weight does not fit the dtype.
        UnknownNameError: no such dtype.

    >>> import jax, mnistjax
    >>> model, info = mnistjax.create_model("softmax"), mnistjax.DatasetInfo("my digits", 10)
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
    >>> page = render_draw_page(mnistjax.TrainedModel(model, variables, info))
    >>> page.startswith("<!doctype html>"), len(page) < 120_000
    (True, True)
    """
    layers = drawable_layers(trained)
    dtype = dtype or choose_dtype(trained)
    names = trained.info.class_names
    shape = tuple(trained.info.image_shape)
    is_ink = shape == _MNIST_SHAPE and trained.info.name not in _NOT_INK
    stages = _describe_stages(layers)
    return render(
        "draw.html.j2",
        {
            "title": f"Draw: {trained.model.name} on {trained.info.name}",
            "sections": (),
            "versions": package_versions(),
            "model": trained.model.name,
            "parameters": count_parameters(trained.variables),
            "dtype": dtype,
            "names": names,
            "long_names": max(map(len, names)) > _LONG_NAME,
            "many_names": len(names) > _MANY_CLASSES,
            "height": shape[0],
            "width": shape[1],
            "fits_mnist": shape == _MNIST_SHAPE,
            "is_ink": is_ink,
            "stages": stages,
            "packed": {
                **pack_network(trained, layers, dtype),
                "names": names,
                "stages": [stage["place"] for stage in stages],
            },
        },
        styles=("report.css", "draw.css"),
        scripts=_SCRIPTS,
    )


def try_draw_page(trained: TrainedModel) -> str | None:
    """Returns the page that `render_draw_page` renders, or None for a network that it cannot run.

    Args:
        trained: the network.
    """
    try:
        return render_draw_page(trained)
    except ConfigError:
        return None


def write_draw_page(
    trained: TrainedModel, path: str | os.PathLike[str], *, dtype: Dtype | None = None
) -> Path:
    """Writes the page that `render_draw_page` renders.

    Args:
        trained: the network.
        path: the file to write; or a folder that exists, in which it is `draw.html`.
        dtype: the dtype of the weights, as for `render_draw_page`.

    Returns:
        The path of the page.

    Raises:
        ConfigError: as `render_draw_page` raises it, or the path cannot be used.
        RunError: the page cannot be written.
    """
    page = render_draw_page(trained, dtype=dtype)
    file = user_path(path, "page")
    file = file / DRAW_PAGE if file.is_dir() else file
    try:
        write_text_atomically(file, page)
    except OSError as error:
        raise RunError(f"expected to write the page to {file}: {error}") from error
    return file


def _describe_stages(layers: list[Layer]) -> list[dict[str, Any]]:
    """Returns what is shown of the hidden layers: of each module that has weights, its result."""
    stages: dict[str, dict[str, Any]] = {}
    for place, layer in enumerate(layers):
        if isinstance(layer, Conv | Dense | MaxPool | Relu):
            stage = stages.setdefault(layer.name, {"words": []})
            stage["words"].append(_describe_layer(layer))
            size = _TIMES.join(map(str, layer.shape))
            stage |= {"place": place, "size": size, "is_image": len(layer.shape) == 3}
    *hidden, _ = stages.values()  # The last ones are the logits.
    return [{**stage, "words": ", ".join(stage["words"])} for stage in hidden]


def _describe_layer(layer: Layer) -> str:
    if isinstance(layer, Conv):
        size = len(layer.kernel)
        return f"convolution {size}{_TIMES}{size}" + (
            f", stride {layer.stride}" * (layer.stride > 1)
        )
    if isinstance(layer, MaxPool):
        return f"max pooling {layer.size}{_TIMES}{layer.size}"
    return "dense" if isinstance(layer, Dense) else "ReLU"
