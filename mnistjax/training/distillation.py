"""Distillation: a network, the student, learns from the probabilities of another, its teacher."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

# `(images float32 [B, H, W, C]) -> logits float [B, K]`.
Teacher = Callable[[jax.Array], jax.Array]


def distillation_loss(
    logits: jax.Array, teacher_logits: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    r"""Computes how far a student is from its teacher (Hinton et al., 2015).

    For the logits $z$ of the student and $u$ of the teacher, it is

    $$T^2 \sum_k p_k \log \frac{p_k}{q_k}, \quad p = \operatorname{softmax}(u / T), \quad
    q = \operatorname{softmax}(z / T).$$

    A high temperature shows the student more of the small probabilities; with the factor $T^2$, the
    size of the gradient hardly depends on it (https://arxiv.org/abs/1503.02531).

    Args:
        logits: float32 [B, K], of the student.
        teacher_logits: float [B, K]; no gradient flows into them. They may be logarithms of
            probabilities, of which some may be zero.
        temperature: T, positive.

    Returns:
        float32 [B], in nats.

    Raises:
        ValueError: the shapes differ.

    >>> teacher_logits = jnp.log(jnp.array([[0.9, 0.1, 0.0], [0.25, 0.5, 0.25]]))
    >>> losses = distillation_loss(jnp.zeros((2, 3)), teacher_logits, 1.0)
    >>> [round(float(loss), 3) for loss in losses]
    [0.774, 0.059]
    """
    if teacher_logits.shape != logits.shape:
        raise ValueError(
            f"expected logits of the teacher of shape {logits.shape}, as the student's, "
            f"found {teacher_logits.shape}"
        )
    temperature = jnp.asarray(temperature, jnp.float32)
    teacher_logits = jax.lax.stop_gradient(teacher_logits).astype(jnp.float32)
    targets = jax.nn.softmax(teacher_logits / temperature)
    predictions = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * optax.losses.kl_divergence(predictions, targets)
