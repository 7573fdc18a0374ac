"""Populations that the tests of their report look at: one that is trained, and made-up ones."""

from __future__ import annotations

import numpy as np
from report_runs import HOSTILE_NAME, make_dataset

import mnistjax
from mnistjax.runs import Member, Population

CONFIG = mnistjax.TrainConfig(model="mlp", batch_size=16, epochs=3)
DATASET = make_dataset(4, noise=0.2)
HOSTILE = (
    '"><img src=x onerror=alert(1)>',
    "</svg><script>alert(2)</script>",
    "{{ 7 * 7 }}</p>",
)
FAILURE = "the <b>loss</b> in step 3 is nan,\nand 'that' is \"all\""
RATES = (0.01, 0.1, 1.0)


def member(settings, validation, *, test=0.5, epochs=3, name="squares"):
    """Returns a member whose validation accuracy (or without one, training accuracy) is made up."""
    final = 0.6 if validation is None else validation
    key = "validation_accuracy" if validation is not None else "train_accuracy"
    history = [
        {"train_accuracy": 0.6, "validation_accuracy": None, "epoch": float(n), key: final * share}
        for n, share in enumerate(np.linspace(0.5, 1, epochs).tolist(), start=1)
    ]
    result = {
        **{"train_accuracy": history[-1]["train_accuracy"], "validation_accuracy": validation},
        **{"test_accuracy": test, "epochs": float(epochs), "train_seconds": 1.5},
        **{"source": name, "train_count": 1000, "versions": {"mnistjax": "9.9"}},
    }
    info = mnistjax.DatasetInfo(name, 4, image_shape=(12, 12, 1))
    model = mnistjax.create_model("softmax")
    network = mnistjax.TrainedModel(model, {}, info, CONFIG, result, tuple(history))
    return Member(settings, 0, network)


def lost(settings, error=FAILURE):
    """Returns a member whose training failed."""
    return Member(settings, 0, None, error)


def ended(settings, validation):
    """Returns a member that a search ended after an epoch."""
    row = {
        **{"epoch": 1.0, "step": 5, "train_seconds": 1.5, "train_accuracy": 0.6},
        "validation_accuracy": validation,
    }
    return Member(settings, 0, None, history=(row,))


def _make_up():
    rng = np.random.default_rng(0)
    seeds = [{"seed": seed} for seed in range(3)]
    grid = [
        {"optimizer": optimizer, "learning_rate": rate, **seed}
        for optimizer in ("sgd", "adam")
        for rate in RATES
        for seed in seeds
    ]
    # The higher the validation accuracy, the lower the test accuracy.
    shares = [0.7 + 0.015 * number for number in range(len(grid))]
    pairs = list(zip(grid, shares, strict=True))
    draws = zip(10 ** rng.uniform(-4, 0, 100), *rng.uniform(0.5, 1, (2, 100)), strict=True)
    return {
        "grid": [member(settings, share, test=1.5 - share) for settings, share in pairs],
        "failures": [
            lost(grid[0]),
            *(member(settings, 0.8) for settings in grid[1:15]),
            *map(lost, grid[15:]),
        ],
        "without validation": [member(settings, None, test=share) for settings, share in pairs],
        "eliminated": [
            *(ended(settings, 0.95) for settings in grid[:9]),
            member(grid[9], 0.9),
        ],
        "one": [member({}, 0.875)],
        "seeds": [member(seed, share) for seed, share in zip(seeds, shares, strict=False)],
        "hostile": [
            *(member({"model": text, "shift": 3}, 0.8, name=HOSTILE_NAME) for text in HOSTILE),
            lost({"model": "x" * 300, "shift": 1}),
        ],
        "a hundred": [
            member({"learning_rate": float(rate), "b1": float(decay)}, float(share))
            for rate, decay, share in draws
        ],
    }


# Populations by name, which differ in what is missing.
MADE_UP = {name: Population(CONFIG, tuple(members)) for name, members in _make_up().items()}


def train(workdir):
    """Trains a population of six networks, of which two diverge."""
    settings = {"optimizer": "sgd", "learning_rate": [0.05, 0.5, 1e30]}
    return mnistjax.fit_population(CONFIG, DATASET, **settings, seeds=range(2), workdir=workdir)
