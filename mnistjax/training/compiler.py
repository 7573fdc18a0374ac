"""Options of XLA for compiling training programs."""

from __future__ import annotations

import jax


def compiler_options(
    *, deterministic: bool = False, runs_once: bool = False
) -> dict[str, int | bool]:
    """Returns XLA options for the default device, to pass to `jax.jit(compiler_options=...)`.

    On CPU, XLA prefers vectors of 256 bits even if the processor has longer ones. With 512 bits, a
    step of `cnn` takes 12% less processor time (benchmarks/README.md), and processors without such
    vectors still use shorter ones. LLVM optimizes at level 1 instead of 3: it takes 10 to 40% less
    time for the larger programs of the recipes, and what it makes of them is as fast or faster.
    JAX's own `jax_disable_most_optimizations` comes first.

    Args:
        deterministic: whether a GPU must give the same bits in every run, which is slower. A CPU
            does so without an option.
        runs_once: whether the program runs about once, such as one that draws initial weights: it
            should compile fast rather than run fast. On CPU, LLVM does not optimize it.

    >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
    >>> int(double(3))
    6
    """
    platform = jax.default_backend()
    if platform == "cpu":
        unoptimized = runs_once or jax.config.read("jax_disable_most_optimizations")
        level = 0 if unoptimized else 1
        return {"xla_cpu_prefer_vector_width": 512, "xla_backend_optimization_level": level}
    if platform == "gpu" and deterministic:
        return {"xla_gpu_deterministic_ops": True}
    return {}
