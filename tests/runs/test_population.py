"""Populations: each member is the network that `fit` trains alone."""

import json
import logging
import os
import signal
import statistics

import jax
import numpy as np
import pytest
from small_runs import CONFIG, dataset, squares

import mnistjax
from mnistjax import fit, fit_population
from mnistjax.errors import ConfigError, NonFiniteLossError, RunError, RunNotFoundError
from mnistjax.runs import callbacks, load_population, trainer
from mnistjax.signals import Interrupted

QUICK = CONFIG.replace(epochs=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("populations") / "sweep"


@pytest.fixture(scope="module")
def found(directory):
    """Two seeds of three settings, of which one is another network."""
    return fit_population(
        QUICK,
        dataset(),
        model=["mlp", "softmax"],
        learning_rate=[1e-3, 1e-2],
        seeds=range(2),
        workdir=directory,
    )


def weights(network):
    return jax.tree.leaves(network.variables)


def assert_same_bits(one, other):
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_member_is_bit_for_bit_the_network_that_is_trained_alone(found):
    assert len(found) == 8
    for number, row in enumerate(found.rows):
        settings = {name: row[name] for name in ("model", "learning_rate", "seed")}
        alone = fit(QUICK.replace(**settings), dataset()).trained
        assert_same_bits(found.member(number), alone)
        assert row["test_accuracy"] == alone.result["test_accuracy"]
        assert row["member"] == number


def test_a_group_is_compiled_once(found, caplog):
    assert [row["group"] for row in found.rows] == [0] * 4 + [1] * 4
    jax.clear_caches()
    mnistjax.runs.compiled._compile.cache_clear()
    fit(QUICK, dataset())
    with jax.log_compiles():
        fit_population(QUICK, dataset(), learning_rate=[1e-3, 0.02, 0.1], seeds=range(2))
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


def test_members_whose_groups_take_turns_are_compiled_group_by_group(monkeypatch):
    models = []
    monkeypatch.setattr(
        trainer,
        "fit_part",
        lambda config, *_, **__: models.append(config.model) or fit(config, *_),
    )
    names = ["mlp", "softmax"] * 2
    result = fit_population(QUICK, dataset(), model=names, seeds=range(4), combine="zip")
    assert models == ["mlp", "mlp", "softmax", "softmax"]
    assert [row["model"] for row in result.rows] == names
    assert [member.trained.config.seed for member in result.members] == [0, 1, 2, 3]


def test_the_summary_is_mean_and_spread_over_seeds(found):
    summary = found.summary()
    assert [(line["model"], line["learning_rate"], line["n"]) for line in summary] == [
        ("mlp", 1e-3, 2),
        ("mlp", 1e-2, 2),
        ("softmax", 1e-3, 2),
        ("softmax", 1e-2, 2),
    ]
    for index, line in enumerate(summary):
        values = [row["test_accuracy"] for row in found.rows[2 * index : 2 * index + 2]]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        assert line["test_accuracy_mean"] == pytest.approx(mean)
        assert line["test_accuracy_sd"] == pytest.approx(deviation)
        # Student's t with one degree of freedom at 97.5 %.
        margin = 12.7062 * deviation / 2**0.5
        assert line["test_accuracy_low"] == pytest.approx(mean - margin, abs=1e-4)
        assert line["test_accuracy_high"] == pytest.approx(mean + margin, abs=1e-4)
        assert line["failed"] == 0


def test_the_best_member_is_selected_on_validation_images(found):
    best = max(found.rows, key=lambda row: row["validation_accuracy"])
    assert found.best().result["validation_accuracy"] == best["validation_accuracy"]
    assert_same_bits(found.best(), found.member(best["member"]))
    with pytest.raises(ConfigError, match="by='test'"):
        found.best(by="test")


def test_without_validation_images_none_is_selected():
    alone = fit_population(QUICK.replace(validation_fraction=0.0, steps=1), dataset(), seeds=[3])
    with pytest.raises(ConfigError, match="validation_fraction is 0"):
        alone.best()
    (line,) = alone.summary()
    assert line["n"] == 1
    assert line["test_accuracy_sd"] is line["validation_accuracy_mean"] is None


def test_a_member_that_diverges_is_reported_and_touches_no_other():
    settings = {"optimizer": "sgd", "model": "mlp", "epochs": 2}
    rates = [0.1, 1e30, 0.2]
    found = fit_population(QUICK.replace(**settings), dataset(), learning_rate=rates)
    with pytest.raises(NonFiniteLossError) as alone:
        fit(QUICK.replace(**settings, learning_rate=1e30), dataset())
    assert [row["error"] for row in found.rows] == [None, str(alone.value), None]
    for number in (0, 2):
        after = fit(QUICK.replace(**settings, learning_rate=rates[number]), dataset()).trained
        assert_same_bits(found.member(number), after)
    with pytest.raises(RunError, match="member 1 has no network: the training loss"):
        found.member(1)
    assert [(line["n"], line["failed"]) for line in found.summary()] == [(1, 0), (0, 1), (1, 0)]
    assert found.ensemble().model.name == "ensemble of 2"


def test_where_all_diverge_there_is_no_best():
    config = QUICK.replace(optimizer="sgd", epochs=2)
    found = fit_population(config, dataset(), learning_rate=[1e30])
    with pytest.raises(RunError, match="training of all failed"):
        found.best()
    with pytest.raises(ConfigError, match="found none"):
        found.ensemble()


def test_a_population_is_read_back_from_its_directory(found, directory):
    again = load_population(directory)
    assert again.rows == found.rows
    assert again.summary() == found.summary()
    assert again.config == found.config
    assert_same_bits(again.member(5), found.member(5))
    assert_same_bits(mnistjax.load_run(directory / "members" / "003"), found.member(3))


def test_a_population_that_is_interrupted_goes_on(tmp_path):
    class Stop(callbacks.Callback):
        """Ends the second member in the middle."""

        def on_start(self, run):
            self.seed = run["seed"]

        def on_epoch(self, row):
            if self.seed == 1:
                raise Interrupted(15, "as the test asked")

    options = {"seeds": range(3), "workdir": tmp_path / "sweep"}
    with pytest.raises(Interrupted):
        fit_population(CONFIG, dataset(), **options, callbacks=[Stop()])
    assert sorted(path.name for path in (tmp_path / "sweep/members").iterdir()) == ["000", "001"]
    with pytest.raises(RunError, match="finished population"):
        load_population(tmp_path / "sweep")
    first = (tmp_path / "sweep/members/000/result.json").read_bytes()
    resumed = fit_population(CONFIG, dataset(), **options, resume=True)
    # The member that was finished is as it was.
    assert (tmp_path / "sweep/members/000/result.json").read_bytes() == first
    whole = fit_population(CONFIG, dataset(), seeds=range(3))
    for number in range(3):
        assert_same_bits(resumed.member(number), whole.member(number))


def test_a_population_is_neither_replaced_nor_mixed_unasked(found, directory):
    options = {"seeds": range(2), "workdir": directory}
    with pytest.raises(RunError, match="already holds a population"):
        fit_population(QUICK, dataset(), **options)
    with pytest.raises(RunError, match="same members"):
        fit_population(QUICK, dataset(), **options, resume=True)
    with pytest.raises(RunError, match="same settings"):
        fit_population(QUICK.replace(shift=1), dataset(), **options, resume=True)
    whole = {"model": ["mlp", "softmax"], "learning_rate": [1e-3, 1e-2], **options}
    other = squares(203, 5)
    changed = mnistjax.Dataset(other, dataset().test, dataset().info, "drawn by a test")
    with pytest.raises(RunError, match="same data set"):
        fit_population(QUICK, changed, **whole, resume=True)
    for wrong in ({**options, "overwrite": True}, {"seeds": [1]}):
        with pytest.raises(ConfigError, match="resume with a workdir and without overwrite"):
            fit_population(QUICK, dataset(), **wrong, resume=True)
    assert load_population(directory).rows == found.rows


def test_a_population_may_be_replaced_and_nothing_else_is(tmp_path):
    fit_population(QUICK, dataset(), seeds=[1, 2, 3], workdir=tmp_path)
    mine = tmp_path / "members" / "2024" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("of someone else")
    beside = tmp_path / "members" / "001" / "notes.txt"
    beside.write_text("of someone else")
    fit_population(QUICK, dataset(), seeds=[4], workdir=tmp_path, overwrite=True)
    assert [row["seed"] for row in load_population(tmp_path).rows] == [4]
    left = sorted(path.name for path in (tmp_path / "members").iterdir())
    assert left == ["000", "001", "2024"]
    assert [path.name for path in beside.parent.iterdir()] == ["notes.txt"]
    assert mine.read_text() == "of someone else"


def test_a_replacement_that_is_interrupted_goes_on_without_the_old_members(tmp_path):
    class Stop(callbacks.Callback):
        def on_start(self, run):
            raise ConfigError("as the test asked")

    fit_population(QUICK, dataset(), seeds=[1, 2], workdir=tmp_path)
    options = {"seeds": [1, 2], "workdir": tmp_path}
    with pytest.raises(ConfigError, match="as the test asked"):
        fit_population(
            QUICK.replace(shift=1), dataset(), **options, overwrite=True, callbacks=[Stop()]
        )
    found = fit_population(QUICK.replace(shift=1), dataset(), **options, resume=True)
    assert_same_bits(found.member(1), fit(QUICK.replace(shift=1, seed=2), dataset()).trained)


def test_runs_that_belong_to_no_population_are_left_alone(tmp_path):
    fit(QUICK, dataset(), workdir=tmp_path / "members" / "001")
    with pytest.raises(RunError, match="belongs to no population"):
        fit_population(QUICK, dataset(), seeds=range(2), workdir=tmp_path)
    assert not (tmp_path / "population.json").exists()


def test_a_report_is_replaced_with_its_population_and_no_other_is(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("of someone else")
    for resume in (False, True):
        with pytest.raises(RunError, match=r"report.html, which belongs to no population"):
            fit_population(QUICK, dataset(), seeds=[1], workdir=tmp_path, resume=resume)
    assert page.read_text() == "of someone else"
    page.unlink()
    fit_population(QUICK, dataset(), seeds=[1], workdir=tmp_path)
    page.write_text("of this population")
    fit_population(QUICK, dataset(), seeds=[2], workdir=tmp_path, overwrite=True)
    assert not page.exists()


def test_what_to_type_after_an_interruption_names_the_population(tmp_path, monkeypatch):
    class Signal(callbacks.Callback):
        def on_epoch(self, row):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        fit_population(
            CONFIG, dataset(), seeds=range(2), workdir=tmp_path / "s", callbacks=[Signal()]
        )
    assert f"--workdir {tmp_path / 's'} --resume goes on" in str(caught.value)


def test_a_population_is_of_one_process(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RunError, match="one process for a population, found 2"):
        fit_population(QUICK, dataset(), seeds=range(2))


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", "[]"),
        '{"config": {}, "data": "", "members": [1], "rows": null}',
        '{"config": {}, "data": "", "members": [{}], "rows": [1]}',
        '{"config": {}, "data": "", "members": [{}], "rows": [{}]}',
        '{"config": {}, "data": "", "members": [{}], "rows": []}',
        '{"config": {}, "data": 3, "members": [], "rows": []}',
        '{"config": {}, "data": "", "members": [{"seed": [1]}], "rows": null}',
        '{"config": {}, "data": "", "members": [{"n": 1}], "rows": null}',
        '{"config": {}, "data": "", "members": [{"seed": 1}, {"shift": 1}], "rows": null}',
    ],
)
def test_a_damaged_description_is_one_line(tmp_path, content):
    (tmp_path / "population.json").write_text(content)
    with pytest.raises(RunError, match=r"expected a population in .*population.json"):
        load_population(tmp_path)


def test_a_directory_without_a_population_is_told():
    with pytest.raises(RunNotFoundError, match=r"no population.json"):
        load_population("nowhere")


def test_nothing_is_compiled_or_written_before_every_setting_is_checked(tmp_path, caplog):
    for settings in (
        {"learning_rate": [0.1, -1]},
        {"batch_size": [32, 10_000]},
        {"model": ["mlp", "cnn-bn"], "microbatch_size": 16},
    ):
        with jax.log_compiles(), pytest.raises(ConfigError):
            fit_population(QUICK, dataset(), **settings, workdir=tmp_path / "new")
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
    assert not (tmp_path / "new").exists()


def test_every_finished_member_is_told_and_a_watcher_that_fails_harms_nothing(caplog):
    told = []

    def watch(row):
        told.append(row)
        raise (ValueError, SystemExit)[row["member"]]("as the test asked")

    with caplog.at_level(logging.WARNING):
        found = fit_population(QUICK, dataset(), seeds=range(2), on_member=watch)
    assert told == found.rows
    assert caplog.text.count("as the test asked") == 2


def test_numbers_of_members_that_do_not_exist_are_refused(found):
    for number in (-1, 8):
        with pytest.raises(ConfigError, match=f"from 0 to 7, found {number}"):
            found.member(number)


def test_the_description_says_what_distinguishes_the_members(found, directory):
    content = json.loads((directory / "population.json").read_text())
    assert content["members"][3] == {"model": "mlp", "learning_rate": 0.01, "seed": 1}
    assert content["rows"] == found.rows


def test_a_setting_named_epochs_stays_one():
    found = fit_population(QUICK, dataset(), epochs=[1, 2])
    assert [(line["epochs"], line["trained_epochs"]) for line in found.summary()] == [
        (1, 1),
        (2, 2),
    ]
