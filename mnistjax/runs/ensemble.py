"""Ensembles: several networks that vote, as one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnistjax.errors import ConfigError
from mnistjax.models import Model, PyTree, Variables
from mnistjax.runs.trained import TrainedModel, check_same_kind


def ensemble(networks: Sequence[TrainedModel]) -> TrainedModel:
    """Returns the soft vote of several networks: the mean of their class probabilities.

    It is evaluated like any other network, but cannot be trained or saved: its members can.

    Args:
        networks: the members, at least one, of one image shape and number of classes.

    Returns:
        A network whose logits are the logarithms of the mean probabilities.

    Raises:
        ConfigError: there is no member, or the members are for different kinds of images.

    >>> import mnistjax
    >>> digits = mnistjax.load_dataset("digits")
    >>> config = mnistjax.get_recipe("softmax").replace(steps=20)
    >>> members = [mnistjax.fit(config.replace(seed=seed), digits).trained for seed in (0, 1)]
    >>> mnistjax.runs.ensemble(members).model.name
    'ensemble of 2'
    """
    if not networks:
        raise ConfigError("expected at least one network for an ensemble, found none")
    first = networks[0]
    for other in networks[1:]:
        check_same_kind(first, other.info)
    # Equal networks are one program that runs once for each member.
    models: dict[Model, list[Variables]] = {}
    for network in networks:
        models.setdefault(network.model, []).append(network.variables)
    groups = [jax.tree.map(lambda *leaves: np.stack(leaves), *found) for found in models.values()]
    variables = {
        "params": [group["params"] for group in groups],
        "batch_stats": [group["batch_stats"] for group in groups],
    }
    name = f"ensemble of {len(networks)}"
    model = Model(_cannot_initialize, Vote(tuple(models), len(networks)), name)
    return TrainedModel(model, jax.tree.map(jnp.asarray, variables), first.info, first.config)


def is_ensemble(model: Model) -> bool:
    """Returns whether a network is the vote of others."""
    return isinstance(model.apply, Vote)


def _cannot_initialize(key: jax.Array, images: jax.Array) -> Variables:
    raise ConfigError("expected a network to initialize, found an ensemble, which is not trained")


@dataclasses.dataclass(frozen=True)
class Vote:
    """The function `apply` of an ensemble.

    Attributes:
        models: the models of its networks, each once.
        count: number of networks.
    """

    models: tuple[Model, ...]
    count: int

    def __call__(
        self, variables: Variables, images: jax.Array, *, train: bool = False, **options: Any
    ) -> tuple[jax.Array, PyTree]:
        """Returns the logarithms of the mean probabilities, float32 [B, num_classes]."""
        if train:
            raise ConfigError("expected a network to train, found an ensemble")
        total: Any = 0.0
        groups = zip(self.models, variables["params"], variables["batch_stats"], strict=True)
        for model, params, batch_stats in groups:

            def probabilities(member: Variables, model: Model = model) -> jax.Array:
                return jax.nn.softmax(model.apply(member, images)[0])

            # One after the other: on a CPU that is faster than all at once, and needs less memory.
            votes = jax.lax.map(probabilities, {"params": params, "batch_stats": batch_stats})
            total += jnp.sum(votes, axis=0)
        # The smallest normal number keeps the logarithm finite.
        mean = jnp.maximum(total / self.count, jnp.finfo(jnp.float32).tiny)
        return jnp.log(mean), variables["batch_stats"]
