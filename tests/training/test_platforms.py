"""The programs of every network lower for CPU, GPU and TPU, on one device and on eight.

No GPU or TPU is needed for that: `jax.export` runs the whole of JAX's lowering for a platform, and
fails where an operation has no implementation on it.
"""

from __future__ import annotations

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
    state = calls["train"][1][1]
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


def test_a_call_back_to_the_host_would_be_seen():
    def shout(x):
        return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((), x.dtype), x)

    lowered = jax.jit(shout).lower(jax.numpy.float32(1))
    assert "callback" in lowered.as_text()
