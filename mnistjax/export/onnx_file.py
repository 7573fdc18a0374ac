"""ONNX: a network as a graph of standard operators, for the many programs that run such graphs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnistjax.errors import ConfigError
from mnistjax.export.layers import (
    Conv,
    Crop,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Relu,
    Shape,
    sequential_layers,
)
from mnistjax.export.origin import ORIGIN, origin_json
from mnistjax.export.writing import (
    IMAGES,
    LOGITS,
    PROBABILITIES,
    InputDtype,
    check_input_dtype,
    writing_file,
)
from mnistjax.runs import TrainedModel, package_versions

if TYPE_CHECKING:
    import onnx

# ONNX 1.8, of 2020: every operator here exists in it, and runtimes of today read it.
OPSET = 13
_IR_VERSION = 7
_BATCH = "N"


def write_onnx(
    trained: TrainedModel,
    path: str | os.PathLike[str],
    *,
    input_dtype: InputDtype = "uint8",
    probabilities: bool = False,
) -> Path:
    """Writes an `MLP` or a `CNN` as an ONNX graph, in one file with its weights.

    The graph has one input, `images` [N, H, W, C] with a free N, and one output, `logits` or
    `probabilities`, float32 [N, num_classes]. It is of opset 13, and needs no operators of other
    domains. Scaling of pixels and cropping are part of it; dropout is left out, and batch
    normalization is multiplied into the convolutions. The origin of the network (see
    `describe_origin`) is the entry `origin` of the file's metadata.

    All arithmetic is in float32. A network that computes in bfloat16 is written with the same
    weights, so its logits differ from the graph's by the rounding of bfloat16.

    Args:
        trained: the network.
        path: the file; it is replaced if it exists.
        input_dtype: "uint8" for images from 0 to 255, or "float32" for pixels in [0, 1].
        probabilities: whether the output are probabilities instead of logits.

    Returns:
        The file.

    Raises:
        ConfigError: the network is neither an `MLP` nor a `CNN`, the package onnx is not installed,
            `input_dtype` is unknown, or the path cannot be used.
        RunError: the file cannot be written.
    """
    check_input_dtype(input_dtype)
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "ONNX files need the package onnx, found none: pip install 'mnistjax[onnx]'"
        )
    nodes = [
        *_input_nodes(input_dtype),
        *_layer_nodes(_layers(trained), trained.info.image_shape),
        *([_Node("Softmax", PROBABILITIES, (), {"axis": 1})] if probabilities else []),
    ]
    model = _build(trained, nodes, input_dtype, PROBABILITIES if probabilities else LOGITS)
    with writing_file(path, "ONNX") as (target, temporary):
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return target


class _Node(NamedTuple):
    """An operator that is applied to the output of the one before it.

    Attributes:
        operator: name of the operator.
        name: name of the node, and of its output.
        constants: its inputs after the first.
        attributes: its attributes.
    """

    operator: str
    name: str
    constants: tuple[np.ndarray, ...] = ()
    attributes: Mapping[str, Any] = {}


def _layers(trained: TrainedModel) -> list[Layer]:
    try:
        return sequential_layers(trained)
    except ConfigError as error:
        raise ConfigError(f"{error}; StableHLO (write_stablehlo) takes any network") from error


def _input_nodes(input_dtype: InputDtype) -> Iterator[_Node]:
    """Yields what converts the input to float32 pixels in [0, 1]."""
    if input_dtype == "uint8":
        from onnx import TensorProto

        yield _Node("Cast", "float", (), {"to": TensorProto.FLOAT})
        yield _Node("Div", "scaled", (np.asarray(255, np.float32),))


def _layer_nodes(layers: Sequence[Layer], image_shape: Shape) -> Iterator[_Node]:
    """Yields the nodes of all layers, of which the last gives the logits."""
    shape, channels_first = image_shape, False
    order: np.ndarray | None = None
    for layer in layers:
        if isinstance(layer, Conv) and not channels_first:
            yield _Node("Transpose", "channels_first", (), {"perm": [0, 3, 1, 2]})
            channels_first = True
        if isinstance(layer, Flatten) and channels_first:
            # The graph has the numbers by channel, row and column: the next dense layer takes its
            # kernel in that order, which saves transposing them back.
            order = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
        if isinstance(layer, Dense):
            kernel = layer.kernel if order is None else layer.kernel[order]
            yield _Node("Gemm", layer.name, (kernel, layer.bias))
            order = None
        else:
            yield _layer_node(layer)
        shape = layer.shape


def _layer_node(layer: Layer) -> _Node:
    """Returns the node of a layer other than a dense one."""
    if isinstance(layer, Crop):
        # Before the convolutions, so of [N, H, W, C].
        starts = np.array([layer.top, layer.left], np.int64)
        axes = np.array([1, 2], np.int64)
        return _Node("Slice", layer.name, (starts, starts + layer.shape[:2], axes))
    if isinstance(layer, Conv):
        before, after = layer.padding
        attributes = {"pads": [before, before, after, after], "strides": [layer.stride] * 2}
        constants = (layer.kernel.transpose(3, 2, 0, 1), layer.bias)
        return _Node("Conv", f"{layer.name}/conv", constants, attributes)
    if isinstance(layer, MaxPool):
        sides = [layer.size] * 2
        return _Node("MaxPool", f"{layer.name}/pool", (), {"kernel_shape": sides, "strides": sides})
    if isinstance(layer, Relu):
        return _Node("Relu", f"{layer.name}/relu")
    if isinstance(layer, Flatten):
        return _Node("Flatten", layer.name, (), {"axis": 1})
    raise ConfigError(
        f"expected a layer that ONNX can express, found {layer.name!r} ({type(layer).__name__}); "
        "StableHLO (write_stablehlo) takes any network"
    )


def _build(
    trained: TrainedModel, nodes: Sequence[_Node], input_dtype: InputDtype, output: str
) -> onnx.ModelProto:
    """Returns the checked model of a chain of nodes, of which the last gives `output`."""
    import onnx
    from onnx import helper, numpy_helper

    protos: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    last = IMAGES
    for node in nodes:
        names = [f"{node.name}/{index}" for index in range(len(node.constants))]
        constants += map(numpy_helper.from_array, node.constants, names)
        result = output if node is nodes[-1] else node.name
        inputs = [last, *names]
        protos.append(
            helper.make_node(node.operator, inputs, [result], node.name, **node.attributes)
        )
        last = result
    dtype = onnx.TensorProto.UINT8 if input_dtype == "uint8" else onnx.TensorProto.FLOAT
    images = (_BATCH, *trained.info.image_shape)
    classes = (_BATCH, trained.info.num_classes)
    graph = helper.make_graph(
        protos,
        trained.model.name,
        [helper.make_tensor_value_info(IMAGES, dtype, images)],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, classes)],
        constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="mnistjax",
        producer_version=package_versions()["mnistjax"],
    )
    helper.set_model_props(model, {ORIGIN: origin_json(trained)})
    onnx.checker.check_model(model, full_check=True)
    return model
