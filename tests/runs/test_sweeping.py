"""Members of a population: combinations of lists, and draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.runs import Choice, LogUniform, Uniform
from mnistjax.runs.sweeping import expand


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_a_product_has_every_combination_once_and_the_last_list_varies_fastest(lengths):
    names = ("seed", "batch_size", "steps")[: len(lengths)]
    lists = {name: list(range(1, n + 1)) for name, n in zip(names, lengths, strict=True)}
    members = expand(lists)
    values = [tuple(member.values()) for member in members]
    assert len(set(values)) == len(values) == math.prod(lengths)
    assert values == sorted(values)


@given(st.integers(1, 6))
def test_zipped_lists_run_in_parallel(length):
    members = expand(
        {"seeds": range(length), "shift": list(range(length)), "model": "mlp"}, combine="zip"
    )
    assert members == [{"seed": i, "shift": i, "model": "mlp"} for i in range(length)]


def test_one_value_is_for_all_members_and_no_list_is_one_member():
    assert expand({"model": "mlp", "learning_rate": 0.1}) == [
        {"model": "mlp", "learning_rate": 0.1}
    ]
    assert expand({}) == [{}]


def test_values_of_arrays_are_numbers_of_python():
    (member, _) = expand({"learning_rate": np.array([0.1, 0.2], np.float32)})
    assert type(member["learning_rate"]) is float
    (member,) = expand({"seed": np.int64(3), "shift": Choice(np.arange(2))}, draws=1)
    assert [type(value) for value in member.values()] == [int, int]


@given(st.integers(0, 2**32), st.integers(1, 50))
def test_draws_are_within_bounds_and_follow_from_their_seed(seed, draws):
    distributions = {
        "learning_rate": LogUniform(1e-4, 1e-2),
        "label_smoothing": Uniform(0.1, 0.2),
        "optimizer": Choice(["adam", "sgd"]),
    }
    members = expand(distributions, draws=draws, draw_seed=seed)
    assert len(members) == draws
    for member in members:
        assert 1e-4 <= member["learning_rate"] <= 1e-2
        assert 0.1 <= member["label_smoothing"] <= 0.2
        assert member["optimizer"] in ("adam", "sgd")
    assert members == expand(distributions, draws=draws, draw_seed=seed)
    # What is drawn for one setting does not depend on the others, nor on the number of draws.
    alone = expand({"label_smoothing": Uniform(0.1, 0.2)}, draws=draws + 1, draw_seed=seed)
    smoothings = [member["label_smoothing"] for member in members]
    assert [member["label_smoothing"] for member in alone][:draws] == smoothings


def test_every_combination_has_the_same_draws():
    members = expand({"seeds": [0, 1], "learning_rate": LogUniform(1e-4, 1e-2)}, draws=3)
    rates = [member["learning_rate"] for member in members]
    assert len(members) == 6
    assert rates[:3] == rates[3:]
    assert len(set(rates)) == 3


def test_a_log_uniform_draw_is_as_often_in_each_decade():
    rng = np.random.default_rng(0)
    draws = np.array([LogUniform(1e-4, 1e-2).draw(rng) for _ in range(4000)])
    assert 0.46 < np.mean(draws < 1e-3) < 0.54
    uniform = np.array([Uniform(-1, 3).draw(rng) for _ in range(4000)])
    assert abs(uniform.mean() - 1) < 0.08


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"seeds": []}, {}, "at least one value of seed, found none"),
        ({"seeds": range(3), "shift": [1, 2]}, {"combine": "zip"}, "seed with 3, shift with 2"),
        ({"dataset": ["a", "b"]}, {}, "one dataset for all members"),
        ({"validation_seed": [1, 2]}, {}, "one validation_seed for all members"),
        ({"learning_rate": Uniform(0, 1)}, {}, "draws=None and distributions of learning_rate"),
        ({"seeds": [1]}, {"draws": 3}, "draws=3 and distributions of nothing"),
        ({"learning_rate": Uniform(0, 1)}, {"draws": 0}, "draws, an integer of .* found 0"),
        ({"learning_rate": Uniform(0, 1)}, {"draws": 2.5}, "draws, an integer of .* found 2.5"),
        ({"shift": Choice([1])}, {"draws": 1, "draw_seed": -1}, "draw_seed, .* found -1"),
        ({"learning_rate": [0.1, 0.2, 0.1]}, {}, "differ, found two of .*0.1"),
        ({"seed": 7, "seeds": [1, 2]}, {}, "seed or seeds, found both"),
    ],
)
def test_what_makes_no_population_is_refused(settings, options, message):
    with pytest.raises(ConfigError, match=message):
        expand(settings, **options)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="setting"):
        expand({"learning_rat": [0.1]})
    with pytest.raises(UnknownNameError, match="combine"):
        expand({}, combine="mix")


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (Uniform, 1, 1),
        (Uniform, 2, 1),
        (Uniform, 0, math.inf),
        (Uniform, math.nan, 1),
        (LogUniform, 0, 1),
        (LogUniform, -1, 1),
    ],
)
def test_bounds_that_enclose_nothing_are_refused(kind, low, high):
    with pytest.raises(ConfigError, match=f"{kind.__name__} of a low .*found {low} and {high}"):
        kind(low, high)


def test_a_choice_among_nothing_is_refused():
    with pytest.raises(ConfigError, match="found none"):
        Choice([])
