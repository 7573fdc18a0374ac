"""What XLA is told when it compiles a training program."""

from __future__ import annotations

import jax


def compiler_options() -> dict[str, int]:
    """Returns options of XLA that suit the default device, for `jax.jit(compiler_options=...)`.

    On CPU XLA asks for vectors of 256 bits, even where the processor has longer ones; with 512 a
    step of `cnn` takes 12 % less processor time (benchmarks/README.md). A processor without them
    uses what it has. On other devices there is nothing to be said.
    """
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}
