"""Files with a digest: every changed byte is noticed, whatever it makes of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mnistjax.errors import RunError
from mnistjax.runs.sealed import read_sealed, write_sealed

FORMATS = ["test-3"]
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7, np.int32)}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "sealed.safetensors"
    write_sealed(path, TENSORS, {"format": "test-3", "note": '"sha256":"' + "0" * 64 + '"'})
    return path


def test_read_back_as_it_was(sealed):
    tensors, metadata = read_sealed(sealed, FORMATS)
    assert metadata["note"] == '"sha256":"' + "0" * 64 + '"'
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


def test_any_reader_of_safetensors_opens_it(sealed):
    with safe_open(sealed, "numpy") as opened:
        assert set(opened.keys()) == {"a", "b"}
        assert len(opened.metadata()["sha256"]) == 64


def test_every_changed_byte_is_noticed(sealed):
    whole = sealed.read_bytes()
    for place in range(len(whole)):
        for change in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            sealed.write_bytes(damaged)
            with pytest.raises(RunError, match=str(sealed)):
                read_sealed(sealed, FORMATS, unsealed=["test-1"])


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("weights.safetensors", "mnistjax-2"),
        ("checkpoints/step-0000000010.safetensors", "mnistjax-checkpoint-1"),
    ],
)
def test_every_flipped_byte_of_a_real_file_is_noticed(tmp_path, name, version):
    whole = (Path(__file__).parent.parent / "fixtures" / "run-2" / name).read_bytes()
    damaged, file = bytearray(whole), tmp_path / "file"
    for place in range(len(whole)):
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=str(file)):
            read_sealed(file, [version], unsealed=["mnistjax-1"])
        damaged[place] = whole[place]
    file.write_bytes(damaged)
    read_sealed(file, [version])


def test_every_cut_and_every_added_byte_is_noticed(sealed):
    whole = sealed.read_bytes()
    for content in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        sealed.write_bytes(content)
        with pytest.raises(RunError, match=str(sealed)):
            read_sealed(sealed, FORMATS)


@given(
    garbage=st.binary(max_size=99)
    | st.binary(max_size=9).map(lambda end: b"\x09" + 7 * b"\0" + end)
)
def test_garbage_is_refused(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("garbage") / "file"
    path.write_bytes(garbage)
    with pytest.raises(RunError, match="expected"):
        read_sealed(path, FORMATS, unsealed=["test-1"])


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"{}",
        b'{"__metadata__": 1}',
        b" " * (2 << 20),
        b'{"__metadata__": {"format": 3}}',
    ],
    ids=["deep", "empty", "number", "long", "format"],
)
def test_a_header_that_is_not_ours_is_refused(tmp_path, header):
    path = tmp_path / "file"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RunError, match=str(path)):
        read_sealed(path, FORMATS, unsealed=["test-1"])


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "test-4",
            "expected format test-3, found test-4, in .*; a newer version of mnistjax wrote it",
        ),
        ("test-2", r"expected format test-3, found test-2, in [^;]*$"),
        ("other-9", r"expected format test-3, found other-9, in [^;]*$"),
    ],
)
def test_another_format_is_refused(tmp_path, written, message):
    path = tmp_path / "file"
    write_sealed(path, TENSORS, {"format": written})
    with pytest.raises(RunError, match=message):
        read_sealed(path, FORMATS)


def test_a_digest_that_was_taken_out_is_noticed(sealed):
    content = sealed.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]["sha256"]
    fresh = json.dumps(header).encode()
    sealed.write_bytes(len(fresh).to_bytes(8, "little") + fresh + content[8 + length :])
    with pytest.raises(RunError, match="is of format test-3 but records no SHA-256"):
        read_sealed(sealed, FORMATS, unsealed=["test-1"])
