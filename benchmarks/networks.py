"""The networks that `peers.py` compares, described independently of the framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, as a list of layers for the peers and by name for this library.

    Attributes:
        layers: the layers; see `Task` in `workers/protocol.py`.
        model: its name for `create_model`.
    """

    layers: Sequence[Sequence[Any]]
    model: str


def _conv_stage(features: int, size: int, padding: str) -> list[list[Any]]:
    return [["conv", features, size, padding], ["relu"], ["pool", 2]]


def _norm_stage(features: int) -> list[list[Any]]:
    return [["conv", features, 3, "same"], ["batch_norm"], ["relu"]]


def _dense_stage(features: int, dropout: float) -> list[list[Any]]:
    return [["dense", features], ["relu"], ["dropout", dropout]]


FLATTEN, LOGITS = ["flatten"], ["dense", 10]
NETWORKS = {
    "softmax": Network([FLATTEN, LOGITS], "softmax"),
    "mlp": Network([FLATTEN, ["dense", 100], ["relu"], LOGITS], "mlp"),
    "cnn": Network(
        [
            *_conv_stage(32, 3, "valid"),
            *_conv_stage(64, 3, "valid"),
            FLATTEN,
            ["dropout", 0.3],
            LOGITS,
        ],
        "cnn",
    ),
    "cnn-bn": Network(
        [
            *_norm_stage(32),
            ["pool", 2],
            *_norm_stage(64),
            ["pool", 2],
            *_norm_stage(128),
            FLATTEN,
            *_dense_stage(128, 0.5),
            *_dense_stage(64, 0.3),
            LOGITS,
        ],
        "cnn-bn",
    ),
    "speed": Network(
        [
            ["crop", 2],
            ["conv", 16, 6, "valid", 2],
            ["relu"],
            *_conv_stage(48, 3, "valid"),
            FLATTEN,
            ["dense", 128],
            ["relu"],
            LOGITS,
        ],
        "speed",
    ),
}
