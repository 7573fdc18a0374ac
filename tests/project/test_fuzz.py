"""The readers of untrusted files under drawn and damaged input: they read or refuse, within bounds.

`tests/fuzz_readers.py` goes on where these tests end, for as long as one likes.
"""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zlib

import numpy as np
import pytest
from data_files import csv_text, idx_bytes, random_pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from readers import READERS, refuse_or_read

import mnistjax

IMAGES, LABELS = random_pair(0, 12)
ROWS = {"step": 3, "epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.9}
# What a reader allocates beside its input, whatever that is: modules, regular expressions, errors.
OVERHEAD = 1 << 20


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """A file for each reader that it accepts."""
    images = idx_bytes(IMAGES[..., 0])
    layer = {"kernel": np.zeros((784, 10), np.float32), "bias": np.zeros(10, np.float32)}
    trained = mnistjax.TrainedModel(
        mnistjax.create_model("softmax"),
        {"params": {"Dense_0": layer}},
        mnistjax.DatasetInfo("mine", 10),
        mnistjax.TrainConfig(model="softmax"),
    )
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    mnistjax.save_weights(file, trained)
    weights = file.read_bytes()
    return {
        "idx": gzip.compress(images),
        "pair": images + bytes(len(images) - 20) + idx_bytes(LABELS),
        "csv": csv_text(IMAGES[:3], LABELS[:3]).encode(),
        "config": mnistjax.TrainConfig().to_json().encode(),
        "result": json.dumps(ROWS).encode(),
        "metrics": (json.dumps(ROWS) + "\n").encode() * 3,
        "sealed": weights,
        "weights": weights,
        "picture": png(IMAGES[0, ..., 0]),
    }


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name, valid):
    """Or the others would say nothing."""
    if name not in {"pair", "sealed"}:
        assert refuse_or_read(name, valid[name])


def mutate(draw, content):
    """Changes, cuts, repeats and inserts some bytes."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "repeat", "insert"]))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            content[place:place] = content[place : place + 64] * draw(st.integers(1, 4))
        else:
            content[place:place] = draw(st.binary(max_size=16))
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(name, valid, data):
    refuse_or_read(name, mutate(data.draw, valid[name]))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=50)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name, content):
    refuse_or_read(name, content)


def peak_memory(name, content):
    """The largest number of bytes that Python and NumPy hold while a file is read."""
    tracemalloc.start()
    try:
        refuse_or_read(name, content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["idx", "csv", "config", "result", "metrics", "sealed"])
def test_no_reader_allocates_more_than_ten_times_its_file(name, valid):
    rng = np.random.default_rng(0)
    refuse_or_read(name, valid[name])  # What is imported or cached the first time does not count.
    for _ in range(40):
        content = bytearray(valid[name])
        for place in rng.integers(0, len(content), rng.integers(0, 4)):
            content[place] = rng.integers(0, 256)
        content = bytes(content[: rng.integers(1, len(content) + 1)])
        unpacked = len(gzip.decompress(content)) if is_gzip(content) else len(content)
        assert peak_memory(name, content) < 10 * unpacked + OVERHEAD


def is_gzip(content):
    try:
        gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return False
    return content.startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("idx", gzip.compress(idx_bytes(np.zeros((2, 2), np.uint8)) + bytes(1 << 28))),
        ("idx", bytes([0, 0, 8, 3]) + b"\xff" * 12),
        ("idx", gzip.compress(idx_bytes(np.zeros((1 << 14, 1 << 11), np.uint8)))),
        ("csv", gzip.compress(bytes(1 << 26))),
        ("csv", gzip.compress(b"label," + b"\n" * (1 << 26))),
        ("idx", bytes([0, 0, 8, 70]) + b"\0\0\0\1" * 70),
        ("idx", bytes([0, 0, 8, 255]) + b"\0\0\1\0" * 255),
        ("csv", b"label," + b"x," * (1 << 20)),
        ("result", b"[" * (1 << 20)),
        ("config", b"[" * (1 << 20)),
        ("metrics", b'{"step": ' + b"9" * 10_000 + b"}"),
        ("sealed", (1 << 62).to_bytes(8, "little") + b"{}"),
        ("weights", (1 << 19).to_bytes(8, "little") + b"[" * (1 << 19)),
    ],
    ids=[
        "bomb",
        "huge",
        "blank images",
        "endless header",
        "empty rows",
        "rank 70",
        "rank 255",
        "wide",
        "deep",
        "deep 2",
        "digits",
        "long",
        "deep 3",
    ],
)
def test_known_attacks_are_refused_within_the_bound(name, content):
    assert not refuse_or_read(name, content)
    # A small compressed file may unpack to 16 MiB, which are joined from parts.
    bound = 10 * len(content) if not is_gzip(content) else 3 * (1 << 24)
    assert peak_memory(name, content) < bound + OVERHEAD
