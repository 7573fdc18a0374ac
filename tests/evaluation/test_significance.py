"""McNemar's test, Welch's test and Holm's correction: numbers by hand, and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistjax.evaluation import adjust_p_values, mcnemar, welch

ACCURACIES = st.lists(st.integers(0, 360).map(lambda right: right / 360), min_size=2, max_size=6)


def outcome(only_first, only_second, both=5, neither=3):
    """What two classifiers get right, with this many images in each of the four cells."""
    first = [True] * (only_first + both) + [False] * (only_second + neither)
    second = [False] * only_first + [True] * (both + only_second) + [False] * neither
    return np.array(first), np.array(second)


def binomial_tail(low, count):
    """Twice the probability of at most `low` heads in `count` tosses."""
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(low + 1)) / 2**count)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
        (0, 6, 2 / 2**6),
        (20, 20, 1.0),
        (30, 12, binomial_tail(12, 42)),
        (40, 260, binomial_tail(40, 300)),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second, p_value):
    test = mcnemar(*outcome(only_first, only_second))
    assert (test.only_first, test.only_second) == (only_first, only_second)
    assert test.p_value == pytest.approx(p_value, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_mcnemar_is_symmetric_and_looks_at_discordant_images_alone(first, second, both):
    test = mcnemar(*outcome(first, second, both=both))
    swapped = mcnemar(*outcome(second, first, both=0))
    assert 0 <= test.p_value <= 1
    assert test.p_value == pytest.approx(swapped.p_value)
    assert (swapped.only_first, swapped.only_second) == (second, first)
    more_uneven = mcnemar(*outcome(first + 30, second)) if first >= second else test
    assert more_uneven.p_value <= test.p_value + 1e-12


def test_mcnemar_needs_the_same_images():
    with pytest.raises(ValueError, match=r"expected the same images, got \(3,\) and \(4,\)"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_welch_agrees_with_the_hand():
    from scipy.stats import t as student

    first, second = [0.90, 0.92], [0.94, 0.98]
    test = welch(first, second)
    errors = [0.01**2, 0.02**2]  # Squared standard errors of the means.
    t = -0.05 / math.sqrt(sum(errors))
    df = sum(errors) ** 2 / sum(error**2 for error in errors)
    assert test.difference == pytest.approx(-0.05)
    assert test.p_value == pytest.approx(2 * student.sf(-t, df))
    half = student.ppf(0.975, df) * math.sqrt(sum(errors))
    assert test.interval == pytest.approx((-0.05 - half, -0.05 + half))


@given(ACCURACIES, ACCURACIES)
def test_welch_is_antisymmetric_and_its_interval_agrees_with_its_p_value(first, second):
    test, swapped = welch(first, second), welch(second, first)
    if test is None:
        assert np.ptp(first) == np.ptp(second) == 0
        assert swapped is None
        return
    assert test.difference == pytest.approx(np.mean(first) - np.mean(second), abs=1e-12)
    assert test.p_value == pytest.approx(swapped.p_value, abs=1e-9)
    assert test.interval == pytest.approx(tuple(-end for end in swapped.interval[::-1]), abs=1e-9)
    low, high = test.interval
    assert low <= test.difference <= high
    if abs(test.p_value - 0.05) > 1e-6:
        assert (low <= 0 <= high) == (test.p_value > 0.05)


@pytest.mark.parametrize(
    ("first", "second"),
    [([0.9], [0.8]), ([0.9], [0.7, 0.8]), ([0.7, 0.8], [0.9]), ([0.1] * 3, [0.2] * 3)],
)
def test_welch_claims_nothing_where_the_spread_is_not_known(first, second):
    assert welch(first, second) is None


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_same_recipe_is_seldom_called_different(seeds):
    """Over seeds at most about 5 % of pairs, where McNemar's test took two networks for recipes."""
    rng = np.random.default_rng(0)
    runs = rng.normal(0.975, 0.002, (300, 2, seeds))
    p_values = np.array([welch(first, second).p_value for first, second in runs])
    assert np.mean(p_values < 0.05) <= 0.08
    apart = [welch(first, second - 0.02).p_value for first, second in runs[:30]]
    assert np.mean(np.less(apart, 0.05)) > (0.95 if seeds == 5 else 0.3)


def test_holm_agrees_with_the_hand():
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert adjust_p_values([0.2]) == (0.2,)
    assert adjust_p_values([]) == ()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values):
    adjusted = adjust_p_values(p_values)
    assert len(adjusted) == len(p_values)
    for before, after in zip(p_values, adjusted, strict=True):
        assert before <= after <= min(1, len(p_values) * before)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
