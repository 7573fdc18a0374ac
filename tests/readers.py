"""The readers of untrusted files, as functions of bytes: what the fuzz tests call.

Each may refuse its input with an error of this package, and nothing else.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from mnistjax.data.idx import decode_idx, decode_idx_pair
from mnistjax.data.kaggle_csv import read_kaggle_csv
from mnistjax.errors import MnistjaxError
from mnistjax.reading.pictures import load_upright
from mnistjax.runs import TrainConfig, load_weights, read_metrics, read_result
from mnistjax.runs.sealed import read_sealed

_FOLDER = Path(tempfile.mkdtemp(prefix="mnistjax-readers-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def _on_disk(name, content):
    file = _FOLDER / name
    file.write_bytes(content)
    return file


def _pair(content):
    half = len(content) // 2
    return decode_idx_pair(content[:half], content[half:], "images", "labels")


READERS = {
    "idx": lambda content: decode_idx(content, "file"),
    "pair": _pair,
    "csv": lambda content: read_kaggle_csv(_on_disk("train.csv", content)),
    "config": lambda content: TrainConfig.from_json(content.decode("utf-8", "surrogateescape")),
    "result": lambda content: read_result(_on_disk("result.json", content).parent),
    "metrics": lambda content: read_metrics(_on_disk("metrics.jsonl", content).parent),
    "sealed": lambda content: read_sealed(_on_disk("file", content), ["a-2"], unsealed=["a-1"]),
    "weights": lambda content: load_weights(_on_disk("weights", content)),
    "picture": lambda content: load_upright(_on_disk("picture", content)),
}


def refuse_or_read(name, content):
    """Reads bytes; returns whether they were accepted."""
    try:
        READERS[name](content)
    except MnistjaxError:
        return False
    return True
