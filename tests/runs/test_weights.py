"""Weights on disk: read back as they were, or refused in one line that names the file."""

from __future__ import annotations

import dataclasses
import functools
import json
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from mnistjax import (
    DatasetInfo,
    TrainConfig,
    TrainedModel,
    create_model,
    load_weights,
    save_weights,
)
from mnistjax.atomic import atomic_path, write_text_atomically
from mnistjax.errors import RunError, RunNotFoundError
from mnistjax.runs import read_result
from mnistjax.runs.sealed import write_sealed

INFO = DatasetInfo("squares", 3, ("a", "b", "c"), image_shape=(12, 12, 1))
CONFIG = TrainConfig(model="tiny", epochs=2, learning_rate=0.01)


@functools.cache
def variables():
    model = create_model("tiny", num_classes=3)
    drawn = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    return jax.tree.map(lambda leaf: leaf + 0.5, drawn)


def trained():
    return TrainedModel(create_model("tiny", num_classes=3), variables(), INFO, CONFIG)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run" / "weights.safetensors"
    save_weights(path, trained())
    return path


def content(path):
    with safe_open(path, "numpy") as opened:
        return load_file(path), opened.metadata()


def rewrite(path, tensors=lambda tensors: tensors, **metadata):
    """Writes the file again with other tensors, and with metadata changed (None: left out)."""
    old, described = content(path)
    changed = {**described, **metadata, "sha256": None}
    write_sealed(
        path,
        tensors(dict(old)),
        {key: value for key, value in changed.items() if value is not None},
    )


def assert_refused(path, message, error=RunError):
    with pytest.raises(error) as caught:
        load_weights(path)
    text = str(caught.value)
    assert str(path) in text
    assert message in text
    assert "\n" not in text


def test_read_back_as_it_was(saved):
    for path in (saved, saved.parent, str(saved)):
        trained = load_weights(path)
        jax.tree.map(np.testing.assert_array_equal, trained.variables, variables())
        assert (trained.config, trained.info) == (CONFIG, INFO)
        assert trained.model.name == "tiny"
    images = jnp.ones((2, 12, 12, 1))
    logits, _ = jax.jit(trained.model.apply)(trained.variables, images)
    expected, _ = jax.jit(create_model("tiny", num_classes=3).apply)(variables(), images)
    np.testing.assert_array_equal(logits, expected)


def test_saving_leaves_one_file(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["weights.safetensors"]


def test_an_absent_file_or_directory_is_not_found(tmp_path):
    assert_refused(tmp_path / "none", "found no file", RunNotFoundError)
    with pytest.raises(RunNotFoundError, match=r"weights\.safetensors$"):
        load_weights(tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_anywhere_is_refused(saved, share):
    whole = saved.read_bytes()
    cut = saved.parent / "cut.safetensors"
    cut.write_bytes(whole[: int(share * len(whole))])
    # Damaged where its end is missing, and no file of this kind where its header is.
    assert_refused(cut, "damaged" if len(cut.read_bytes()) > 4096 else "cut.safetensors")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=64))
def test_garbage_is_refused(saved, garbage):
    path = saved.parent / "garbage.safetensors"
    path.write_bytes(garbage)
    assert_refused(path, "")


def test_a_changed_byte_is_noticed(saved):
    """Every byte of the header, and some of the arrays; test_sealed changes all of a small file."""
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (*range(header), *range(header, len(whole), 97)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        saved.write_bytes(damaged)
        with pytest.raises(RunError):
            load_weights(saved)


def test_weights_that_are_not_finite_are_refused(saved):
    bias = np.array([0, np.nan, 0], np.float32)
    rewrite(saved, lambda t: t | {"params/Dense_0/bias": bias})
    assert_refused(saved, "expected finite weights, found NaN or infinity in params/Dense_0/bias")


def test_weights_of_the_format_without_a_digest_are_read(saved):
    tensors, metadata = content(saved)
    save_file(tensors, saved, {**metadata, "format": "mnistjax-1", "sha256": ""})
    jax.tree.map(np.testing.assert_array_equal, load_weights(saved).variables, variables())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"params/extra": np.zeros(2, np.float32)}, "has an unexpected params/extra"),
        (
            lambda t: {n: a for n, a in t.items() if n != "params/Dense_0/bias"},
            "lacks params/Dense_0/bias",
        ),
        (
            lambda t: t | {"params/Dense_0/bias": np.zeros(4, np.float32)},
            "params/Dense_0/bias as float32 (3,), found float32 (4,)",
        ),
        (
            lambda t: t | {"params/Dense_0/bias": np.zeros((3, 1), np.float32)},
            "found float32 (3, 1)",
        ),
        (lambda t: t | {"params/Dense_0/bias": np.zeros(3)}, "as float32 (3,), found float64 (3,)"),
        (lambda t: t | {"params/Dense_0/bias": np.zeros(3, np.int32)}, "found int32 (3,)"),
        (lambda t: t | {"params/Dense_0/bias": np.zeros(3, ml_dtypes.bfloat16)}, "BF16"),
        (lambda t: {}, "lacks "),
    ],
)
def test_weights_of_another_network_are_refused(saved, change, message):
    rewrite(saved, change)
    assert_refused(saved, message)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "expected format mnistjax-2, found none"),
        ({"format": "other-2"}, "expected format mnistjax-2, found other-2"),
        ({"config": None}, "cannot be used"),
        ({"dataset": None}, "cannot be used"),
        ({"config": "{"}, "cannot be used: expected a JSON object of settings"),
        ({"config": "[]"}, "cannot be used: expected a JSON object of settings"),
        ({"config": '{"model": "vgg"}'}, "unknown model 'vgg'"),
        ({"config": '{"model": "mlp"}'}, "weights of another network than 'mlp': "),
        ({"dataset": "{"}, "cannot be used"),
        ({"dataset": "[]"}, "cannot be used"),
        ({"dataset": "null"}, "cannot be used"),
        ({"dataset": '{"name": "squares"}'}, "cannot be used"),
        ({"dataset": '{"name": "squares", "num_classes": 3, "more": 1}'}, "cannot be used"),
        ({"dataset": '{"name": "squares", "num_classes": 0}'}, "num_classes of 'squares'"),
        ({"dataset": '{"name": "squares", "num_classes": 4}'}, "weights of another network than"),
        ({"dataset": '{"name": "squares", "num_classes": "3"}'}, "cannot be used"),
        ({"dataset": '{"name": "squares", "num_classes": 3.0}'}, "cannot be used"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(saved, metadata, message):
    rewrite(saved, **metadata)
    assert_refused(saved, message)


def test_a_file_without_any_metadata_is_refused(saved):
    saved.write_bytes(save(content(saved)[0]))
    assert_refused(saved, "expected format mnistjax-2, found none")


def test_what_fails_while_saving_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved, trained())
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["weights.safetensors"]


def test_the_description_is_readable_without_the_package(saved):
    _, metadata = content(saved)
    assert json.loads(metadata["dataset"])["class_names"] == ["a", "b", "c"]
    assert json.loads(metadata["config"]) == dataclasses.asdict(CONFIG)


@given(old=st.none() | st.binary(max_size=9), new=st.binary(max_size=99), fails=st.booleans())
def test_a_file_is_written_whole_or_not_at_all(tmp_path_factory, old, new, fails):
    target = tmp_path_factory.mktemp("atomic") / "sub" / "file.bin"
    if old is not None:
        target.parent.mkdir()
        target.write_bytes(old)

    def write():
        with atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == target.suffix
            temporary.write_bytes(new)
            assert (target.read_bytes() if target.exists() else None) == old
            if fails:
                raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            write()
    else:
        write()
    expected = old if fails else new
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == (
        {} if expected is None else {"file.bin": expected}
    )


def test_a_body_that_writes_nothing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_has_the_permissions_that_the_umask_gives(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text_atomically(tmp_path / "atomic", "grüße\n")
    assert (tmp_path / "atomic").read_text(encoding="utf-8") == "grüße\n"
    assert os.stat(tmp_path / "atomic").st_mode == os.stat(plain).st_mode


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, r"found no result\.json"), ("{", "expected a JSON object in"), ("[1]", "found list")],
)
def test_a_result_that_cannot_be_read_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(RunError, match=message) as caught:
        read_result(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_dtype_that_numpy_lacks_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(RunError, match=f"found none, in {path}"):
        load_weights(path)
