"""Options of XLA for compiling training programs."""

from __future__ import annotations

import jax


def compiler_options() -> dict[str, int]:
    """Returns XLA options for the default device, to pass to `jax.jit(compiler_options=...)`.

    On CPU, XLA prefers vectors of 256 bits even if the processor has longer ones. With 512 bits, a
    step of `cnn` takes 12% less processor time (benchmarks/README.md), and processors without such
    vectors still use shorter ones. On other devices there are no options.

    >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
    >>> int(double(3))
    6
    """
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}
