"""The distribution of accuracies over seeds."""

import numpy as np
import pytest

from mnistjax import plots
from mnistjax.errors import ConfigError


def test_every_seed_is_in_a_bar_and_the_mean_is_marked():
    rng = np.random.default_rng(0)
    accuracies = {name: rng.normal(mean, 1e-3, 50) for name, mean in (("a", 0.9), ("b", 0.97))}
    figure = plots.seeds(accuracies, bins=7)
    for axes, (name, found) in zip(figure.axes, accuracies.items(), strict=True):
        *_, bars = axes.containers
        assert sum(bar.get_height() for bar in bars) == 50
        assert len(bars) == 7
        mean, deviation = 100 * found.mean(), 100 * found.std(ddof=1)
        assert axes.lines[0].get_xdata()[0] == pytest.approx(mean)
        assert axes.get_title(loc="left") == f"{name}: {mean:.2f} ± {deviation:.2f} % over 50 seeds"


def test_equal_accuracies_and_long_names_are_drawn():
    assert plots.render_png(plots.seeds({"x" * 200: [0.99, 0.99]})).startswith(b"\x89PNG")


@pytest.mark.parametrize("accuracies", [{}, {"mlp": []}, {"mlp": [0.9], "cnn": [0.9, 0.8]}])
def test_one_seed_has_no_distribution(accuracies):
    with pytest.raises(ConfigError, match="at least two accuracies"):
        plots.seeds(accuracies)
