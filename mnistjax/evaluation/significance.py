"""Statistical tests of the difference between two networks, or between two recipes."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np

CONFIDENCE_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's test of two networks on the same images.

    Attributes:
        only_first: number of images that only the first network gets right.
        only_second: number of images that only the second network gets right.
        p_value: probability of a split at least this uneven if both networks were equally good.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclasses.dataclass(frozen=True)
class Welch:
    """Welch's test of two means.

    Attributes:
        difference: mean of the first sample minus mean of the second.
        interval: the 95 % confidence interval of the difference of the true means.
        p_value: probability of a difference at least this large if the true means were equal.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray) -> McNemar:
    """Tests whether two networks differ, by the images that only one of them gets right.

    Let b and c be the numbers of images that only the first and only the second network gets right.
    If both networks were equally good, each of these images would be in either group with
    probability 1/2. The p-value is that of the exact two-sided binomial test,
    `min(1, 2 P[X <= min(b, c)])` with X ~ Binomial(b + c, 1/2)
    (McNemar, 1947, https://doi.org/10.1007/BF02295996; for classifiers Dietterich, 1998,
    https://doi.org/10.1162/089976698300017197).

    The test compares two networks, not the recipes that trained them: two runs of one recipe often
    differ. To compare recipes, train each with several seeds and use `welch`.

    Args:
        first_correct: bool [N], whether the first network is right.
        second_correct: bool [N], whether the second one is right, on the same images.

    Returns:
        The counts b and c, and the p-value.

    Raises:
        ValueError: the two arrays differ in shape.

    >>> mcnemar(np.array([True] * 6 + [False]), np.array([False] * 6 + [False]))
    McNemar(only_first=6, only_second=0, p_value=0.03125)
    """
    from scipy.stats import binomtest

    if first_correct.shape != second_correct.shape:
        raise ValueError(
            f"expected the same images, got {first_correct.shape} and {second_correct.shape}"
        )
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(second_correct & ~first_correct))
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def welch(first: Sequence[float], second: Sequence[float]) -> Welch | None:
    """Tests whether the means of two samples differ, without assuming equal variances.

    The statistic is t = (m1 - m2) / sqrt(s1^2 / n1 + s2^2 / n2), for means m, standard deviations s
    and sizes n. It is compared with Student's t-distribution, whose degrees of freedom are those of
    Welch and Satterthwaite (Welch, 1947, https://doi.org/10.1093/biomet/34.1-2.28).

    Args:
        first: values, for example the accuracies of one recipe over several seeds.
        second: values of the other recipe.

    Returns:
        The difference, its interval and the p-value; None if the variances cannot be estimated:
        a sample has fewer than two values, or the values of both are constant.

    >>> result = welch([0.97, 0.98, 0.99], [0.93, 0.95, 0.94])
    >>> round(result.difference, 3), round(result.p_value, 3)
    (0.04, 0.008)
    """
    from scipy.stats import ttest_ind

    if min(len(first), len(second)) < 2 or np.ptp(first) == np.ptp(second) == 0:
        return None
    with warnings.catch_warnings():
        # SciPy warns if one sample is constant, which is allowed here.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE_LEVEL)
    difference = math.fsum(first) / len(first) - math.fsum(second) / len(second)
    return Welch(difference, (float(low), float(high)), float(test.pvalue))


def adjust_p_values(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusts p-values for multiple testing by Holm's method.

    With p_(1) <= ... <= p_(m), the adjusted p_(i) is max over j <= i of min(1, (m - j + 1) p_(j)).
    If adjusted p-values below 0.05 are called significant, the probability of one or more false
    positives among all m tests is at most 5 % (Holm, 1979, https://www.jstor.org/stable/4615733).

    Args:
        p_values: any number of p-values, from 0 to 1.

    Returns:
        The adjusted p-values, in the order given.

    >>> adjust_p_values([0.03, 0.01, 0.5])
    (0.06, 0.03, 0.5)
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return tuple(adjusted.tolist())
