"""Successive halving: who goes on, and that those who do are the networks that `fit` trains."""

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import CONFIG, dataset

from mnistjax import fit, fit_population
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs import Halving, callbacks, load_population, trainer
from mnistjax.runs.checkpoints import Keeper
from mnistjax.signals import Interrupted

EPOCHS = 9
LONG = CONFIG.replace(epochs=EPOCHS, optimizer="sgd", schedule="cosine")
RATES = [1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.05, 2e-4]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("halving") / "sweep"


@pytest.fixture(scope="module")
def found(directory):
    options = {"search": Halving(), "workdir": directory}
    return fit_population(LONG, dataset(), learning_rate=RATES, **options)


@given(factor=st.integers(2, 5), candidates=st.integers(1, 300), epochs=st.integers(1, 200))
def test_rungs_grow_by_the_factor_to_the_whole_training(factor, candidates, epochs):
    search = Halving(factor)
    if min(candidates, epochs) < factor:
        with pytest.raises(ConfigError, match=f"found {candidates} and {epochs}"):
            search.rungs(candidates, epochs)
        return
    shares = search.rungs(candidates, epochs)
    assert shares[-1] == 1
    for before, after in itertools.pairwise(shares):
        assert after / before == pytest.approx(factor)
    # Each rung has an epoch to train, and the last one a candidate; one rung more would not.
    assert shares[0] * epochs >= 1 - 1e-9
    assert candidates / factor ** (len(shares) - 1) >= 1
    assert min(epochs, candidates) < factor ** len(shares)


@given(st.dictionaries(st.text(max_size=3), st.lists(st.floats(0, 1), max_size=3), min_size=1))
def test_the_best_of_the_candidates_survive(accuracies):
    survivors = Halving().survivors(accuracies)
    means = {name: np.mean(found) for name, found in accuracies.items() if found}
    assert len(survivors) == min(math.ceil(len(accuracies) / 3), len(means))
    worst = min((means[name] for name in survivors), default=1)
    assert all(means[name] <= worst + 1e-12 for name in means.keys() - set(survivors))


def test_each_rung_trains_a_third_of_the_settings_for_three_times_as_long(found):
    epochs = sorted(row["epochs"] for row in found.rows)
    assert epochs == [1] * 6 + [3] * 2 + [9]
    assert [(line["n"], line["eliminated"]) for line in found.summary()].count((0, 1)) == 8


def test_the_winner_is_the_network_that_is_trained_alone(found):
    best = found.best()
    alone = fit(best.config, dataset()).trained
    for ours, theirs in zip(
        jax.tree.leaves(best.variables), jax.tree.leaves(alone.variables), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert best.result["test_accuracy"] == alone.result["test_accuracy"]


def test_those_who_went_on_had_the_highest_validation_accuracies(found):
    for epochs in (1, 3):
        reached = [row for row in found.rows if row["epochs"] >= epochs]
        histories = {}
        for row in reached:
            member = found.members[row["member"]]
            history = member.trained.history if member.trained else member.history
            histories[row["member"]] = history[epochs - 1]["validation_accuracy"]
        on = {row["member"] for row in reached if row["epochs"] > epochs}
        lowest = min(histories[number] for number in on)
        assert all(histories[number] <= lowest for number in histories.keys() - on)


def test_the_test_images_are_seen_by_finished_networks_alone(found):
    for row in found.rows:
        assert (row["test_accuracy"] is None) == (row["epochs"] < EPOCHS)
        assert row["validation_accuracy"] is not None
    member = next(row["member"] for row in found.rows if row["epochs"] == 1)
    with pytest.raises(Exception, match="a search ended it after 1 epochs"):
        found.member(member)


def test_it_is_read_back_as_it_was(found, directory):
    again = load_population(directory)
    assert again.rows == found.rows
    assert again.summary() == found.summary()
    assert again.best().result == found.best().result


def test_one_that_is_interrupted_goes_on_to_the_same_end(found, tmp_path):
    class Stop(callbacks.Callback):
        """Ends the search in its second rung."""

        def on_start(self, run):
            self.step = run["step"]

        def on_epoch(self, row):
            if self.step:
                raise Interrupted(15, "as the test asked")

    options = {"search": Halving(), "workdir": tmp_path / "sweep", "learning_rate": RATES}
    with pytest.raises(Interrupted):
        fit_population(LONG, dataset(), **options, callbacks=[Stop()])
    told = []
    resumed = fit_population(LONG, dataset(), **options, resume=True, on_member=told.append)
    timeless = [
        [{k: v for k, v in row.items() if k != "train_seconds"} for row in one.rows]
        for one in (resumed, found)
    ]
    assert timeless[0] == timeless[1]
    assert sorted(row["member"] for row in told) == list(range(len(RATES)))


def test_a_member_that_was_finished_is_told_once(directory, found):
    told = []
    options = {"search": Halving(), "workdir": directory, "learning_rate": RATES}
    fit_population(LONG, dataset(), **options, resume=True, on_member=told.append)
    assert sorted(row["member"] for row in told) == list(range(len(RATES)))


def test_lengths_may_vary_and_are_read_back(tmp_path):
    settings = {"epochs": [3, 6], "learning_rate": [1e30, 0.1, 0.05]}
    config = LONG.replace(schedule="constant", optimizer="sgd")
    found = fit_population(config, dataset(), search=Halving(), workdir=tmp_path, **settings)
    again = load_population(tmp_path)
    assert [member.settings for member in again.members] == [
        member.settings for member in found.members
    ]
    assert again.rows == found.rows
    assert again.summary() == found.summary()
    assert [line["epochs"] for line in again.summary()] == [3, 3, 3, 6, 6, 6]


def test_a_pause_that_cannot_be_saved_ends_the_search(monkeypatch):
    monkeypatch.setattr(Keeper, "save", lambda *_: False)
    with pytest.raises(RunError, match="checkpoint of a run that pauses"):
        fit_population(LONG, dataset(), search=Halving(), learning_rate=RATES)


def test_settings_compete_by_the_mean_over_their_seeds_and_need_no_directory():
    rates = [1e-4, 0.2, 0.1]
    options = {"search": Halving(), "learning_rate": rates, "seeds": range(2)}
    found = fit_population(LONG.replace(epochs=3), dataset(), **options)
    lines = found.summary()
    first = [
        np.mean([found.members[2 * index + seed].trained is not None for seed in (0, 1)])
        for index in range(3)
    ]
    assert sorted(first) == [0, 0, 1]
    assert [line["n"] for line in lines] == [2 * int(share) for share in first]
    assert found.workdir is None


def test_a_candidate_that_diverges_does_not_go_on():
    config = LONG.replace(epochs=3, schedule="constant")
    rates = [1e30, 0.1, 0.2]
    found = fit_population(config, dataset(), search=Halving(), learning_rate=rates)
    assert found.rows[0]["error"]
    assert found.rows[0]["epochs"] is None
    assert sum(line["n"] for line in found.summary()) == 1


@pytest.mark.parametrize(
    ("changes", "settings", "match"),
    [
        ({}, {"learning_rate": [0.1, 0.2]}, "at least 3 settings .* found 2 and 9"),
        ({}, {"seeds": range(9)}, "found 1 and 9"),
        ({"epochs": 2}, {"learning_rate": RATES}, "found 9 and 2"),
        ({"validation_fraction": 0.0}, {"learning_rate": RATES}, "validation_fraction is 0"),
    ],
)
def test_what_cannot_be_halved_is_refused_before_training(monkeypatch, changes, settings, match):
    monkeypatch.setattr(trainer, "fit_part", pytest.fail)
    with pytest.raises(ConfigError, match=match):
        fit_population(LONG.replace(**changes), dataset(), search=Halving(), **settings)


@pytest.mark.parametrize("factor", [1, 0, -3, 2.5, True, "3"])
def test_a_factor_is_at_least_two(factor):
    with pytest.raises(ConfigError, match="at least 2"):
        Halving(factor)
