"""The programs of every network lower for CPU, GPU and TPU, on one device and on eight.

No GPU or TPU is needed for that: `jax.export` runs the whole of JAX's lowering for a platform, and
fails where an operation has no implementation on it.
"""

from __future__ import annotations

import collections
import re

import jax
import numpy as np
import pytest
from small_runs import CONFIG, dataset

from mnistjax.models import MODELS
from mnistjax.runs.compiled import program_calls
from mnistjax.runs.plan import make_plan
from mnistjax.training import logits_program

PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("devices", "images"), [(1, "replicated"), (8, "replicated"), (8, "sharded"), (8, "streamed")]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_every_program_lowers_for_every_platform(model, dtype, devices, images):
    config = CONFIG.replace(model=model, dtype=dtype, ema_decay=0.9, shift=1)
    plan = make_plan(config, dataset(), devices=devices, images=images)
    calls = program_calls(plan)
    state = calls["train"][1][2]
    rows = plan.placement.rows if devices > 1 else None
    batch = jax.ShapeDtypeStruct((504, *dataset().info.image_shape), np.uint8, sharding=rows)
    calls["logits"] = logits_program(plan.model, rows), (state.variables, batch)
    assert {"train", "create_state", "order", "logits"} <= set(calls)
    for program, arguments in calls.values():
        exported = jax.export.export(program, platforms=PLATFORMS)(*arguments)
        assert exported.platforms == PLATFORMS
        assert exported.nr_devices == devices
        # A call back to the host would stall an accelerator, and cannot be exported to another.
        assert "callback" not in exported.mlir_module()


def train_program(platforms, model, dtype="float32", devices=1, images="replicated"):
    """The lowered training program, and the shape of its data set as it is written there."""
    plan = make_plan(
        CONFIG.replace(model=model, dtype=dtype), dataset(), devices=devices, images=images
    )
    program, arguments = program_calls(plan)["train"]
    (resident,) = [array for array in arguments if getattr(array, "ndim", 0) == 4]
    text = jax.export.export(program, platforms=platforms)(*arguments).mlir_module()
    return text, "x".join(map(str, resident.shape)) + "xui8"


ACCELERATORS = PLATFORMS[1:]


@pytest.mark.parametrize("images", ["replicated", "sharded"])
@pytest.mark.parametrize("devices", [1, 8])
def test_nothing_but_the_gather_of_a_batch_touches_the_data_set(devices, images):
    """A step that copied, converted or scaled all images would be as slow as the data set is
    large."""
    text, images_type = train_program(ACCELERATORS, "tiny", devices=devices, images=images)
    touching = {
        re.findall(r"func\.func|stablehlo\.\w+|}", line)[0]
        for line in text.splitlines()
        if f"tensor<{images_type}>" in line
    }
    carried = {"func.func", "stablehlo.while", "stablehlo.return"}
    assert carried <= touching
    # Where every device has its own images, the gather is in a region, whose type is at its brace.
    assert touching - carried == {
        "}" if (devices, images) == (8, "sharded") else "stablehlo.gather"
    }


def products_and_sums(text):
    """How often each kind of operation occurs with each dtype of operands and of results."""
    counts = collections.Counter()
    operation = r"stablehlo\.(dot_general|convolution|reduce)\b(.*)"
    pattern = operation + r": \(tensor<([^>]*)>.* -> tensor<([^>]*)>"
    for name, settings, operand, result in re.findall(pattern, text):
        if name != "reduce" or "stablehlo.add" in settings:
            counts[name, operand.split("x")[-1], result.split("x")[-1]] += 1
    return counts


@pytest.mark.parametrize("model", MODELS)
def test_half_precision_multiplies_in_bfloat16_and_sums_in_float32(model):
    """GPUs and TPUs add up the products of a matmul or a convolution in float32 by themselves; a
    plain sum has the precision of its operands."""
    halves = products_and_sums(train_program(ACCELERATORS, model, "bfloat16")[0])
    singles = products_and_sums(train_program(ACCELERATORS, model)[0])
    for kind in ("dot_general", "convolution"):
        in_float32 = singles[kind, "f32", "f32"] - halves[kind, "f32", "f32"]
        assert halves[kind, "bf16", "bf16"] == in_float32
    # The confusion matrix is a product of two one-hot matrices, in float32 always, once for each
    # platform.
    assert halves["dot_general", "f32", "f32"] == len(ACCELERATORS)
    assert halves["dot_general", "bf16", "bf16"] > 0
    assert not halves["reduce", "bf16", "bf16"]
    assert halves["reduce", "f32", "f32"]


def test_a_call_back_to_the_host_would_be_seen():
    def shout(x):
        return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((), x.dtype), x)

    lowered = jax.jit(shout).lower(jax.numpy.float32(1))
    assert "callback" in lowered.as_text()
