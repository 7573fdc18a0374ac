"""Networks that are trained side by side are those that `fit` trains alone, up to rounding."""

import os
import re
import signal

import jax
import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset

import mnistjax
from mnistjax import fit, fit_population
from mnistjax.errors import ConfigError, RunError
from mnistjax.models import ops
from mnistjax.runs import Halving, load_population, mapped, side_by_side
from mnistjax.runs.plan import make_plan
from mnistjax.signals import Interrupted

QUICK = CONFIG.replace(epochs=2)
RATES = [1e-3, 3e-3]


def assert_same_network(found, config, **options):
    """The weights differ by rounding alone, and everything counted by little of it."""
    alone = fit(config, dataset(), **options).trained
    leaves = zip(jax.tree.leaves(found.variables), jax.tree.leaves(alone.variables), strict=True)
    for ours, theirs in leaves:
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
    assert found.config == config
    assert len(found.history) == len(alone.history)
    for ours, theirs in zip(found.history, alone.history, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["step"] == theirs["step"]
        for name in ("train_loss", "train_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], abs=2e-2)
    assert found.result.keys() - alone.result.keys() == {"side_by_side"}
    assert alone.result.keys() <= found.result.keys()
    assert found.result["test_loss"] == pytest.approx(alone.result["test_loss"], abs=1e-2)
    assert found.result["test_count"] == 77


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "tiny", "ema_decay": 0.9, "shift": 1, "label_smoothing": 0.1},
        {"model": "cnn", "optimizer": "momentum", "microbatch_size": 16, "rotate": 5.0},
        {"schedule": "one-cycle", "epochs": 1.4, "validation_fraction": 0.0, "optimizer": "muon"},
    ],
    ids=["mlp", "tiny", "cnn", "one-cycle"],
)
def test_members_side_by_side_are_those_trained_alone(settings):
    config = QUICK.replace(**settings)
    # One of the cases has a teacher, which all members share.
    teacher = fit(QUICK, dataset()).trained if config.schedule == "one-cycle" else None
    options = {"teacher": teacher} if teacher else {}
    lists = {"seeds": range(2), "learning_rate": RATES}
    found = fit_population(config, dataset(), together=4, **lists, **options)
    own = config.replace(seed=1, learning_rate=RATES[1])
    assert_same_network(found.member(3), own, **options)
    assert len({row["test_loss"] for row in found.rows}) == 4


def test_members_are_divided_over_the_devices_and_share_nothing():
    config = QUICK.replace(model="tiny", ema_decay=0.9)
    # Five members fill three devices with two places each, and one of them is left over.
    found = fit_population(config, dataset(), seeds=range(5), together=5, devices=3)
    assert_same_network(found.member(4), config.replace(seed=4))
    plan = make_plan(config, dataset(), devices=3)
    programs = mapped.compile_mapped(plan, 6)
    for program in (programs.train, programs.create_state, programs.batch_stats):
        text = program.as_text()
        assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", text)
    state = programs.create_state(jax.device_put(np.zeros((6, 2), np.uint32), plan.placement.rows))
    for leaf in jax.tree.leaves(state.params):
        assert {part.data.shape[0] for part in leaf.addressable_shards} == {2}


def test_a_second_part_compiles_nothing(caplog):
    fit_population(QUICK, dataset(), seeds=range(2), together=2)
    with jax.log_compiles():
        fit_population(QUICK, dataset(), seeds=range(2, 6), learning_rate=5e-3, together=2)
    assert not [
        r for r in caplog.records if "Finished XLA compilation of jit(lowered)" in r.message
    ]


def test_a_member_that_diverges_is_reported_and_touches_no_other():
    rates = [1e-3, 1e30]
    config = QUICK.replace(optimizer="sgd")
    found = fit_population(config, dataset(), learning_rate=rates, seeds=range(2), together=4)
    for row in found.rows:
        if row["learning_rate"] == 1e-3:
            assert_same_network(
                found.member(row["member"]), config.replace(seed=row["seed"], learning_rate=1e-3)
            )
        else:
            assert re.match(r"the .* loss after step \d+ became (nan|inf), with", row["error"])
            assert row["test_accuracy"] is None
    assert [line["failed"] for line in found.summary()] == [0, 2]


def test_the_files_are_those_of_runs(tmp_path):
    settings = {"seeds": range(3), "workdir": tmp_path / "sweep", "together": 2}
    found = fit_population(QUICK, dataset(), **settings)
    loaded = load_population(tmp_path / "sweep")
    assert loaded.rows == found.rows
    assert [m.trained.result.get("side_by_side") for m in loaded.members] == [2, 2, None]
    network = mnistjax.load_run(tmp_path / "sweep/members/001")
    expected = mnistjax.predict_logits(found.member(1), dataset().test.images)
    np.testing.assert_array_equal(mnistjax.predict_logits(network, dataset().test.images), expected)
    with pytest.raises(RunError, match="found one of 2 side by side"):
        mnistjax.runs.repeat(network, dataset())


def test_a_part_that_is_interrupted_begins_again(tmp_path, monkeypatch):
    settings = {"seeds": range(4), "workdir": tmp_path / "sweep", "together": 2}
    expected = fit_population(QUICK, dataset(), seeds=range(4), together=2)
    finish = side_by_side._Several.finish_epoch
    calls = []

    def signal_in_the_second_part(self, step, seconds):
        finish(self, step, seconds)
        calls.append(step)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(side_by_side._Several, "finish_epoch", signal_in_the_second_part)
    with pytest.raises(Interrupted, match=r"2 networks side by side.*--resume goes on"):
        fit_population(QUICK, dataset(), **settings)
    assert sorted(path.parent.name for path in tmp_path.rglob("result.json")) == ["000", "001"]
    resumed = fit_population(QUICK, dataset(), **settings, resume=True)
    assert calls == [6, 12, 6, 6, 12]  # The second part anew.
    for number in range(4):
        ours, theirs = resumed.member(number), expected.member(number)
        for one, other in zip(
            jax.tree.leaves(ours.variables), jax.tree.leaves(theirs.variables), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"together": 0}, "expected together, at least 1"),
        ({"together": 2.0}, "expected together, at least 1"),
        ({"together": 2, "search": Halving()}, "together=1 in a search, found 2"),
        ({"together": 2, "callbacks": [Recorder()]}, "together=1 with callbacks, found 2"),
        ({"together": 2, "patience": 3}, "patience ends each"),
        ({"together": 2, "on_nan": "skip"}, "on_nan='skip' skips"),
        ({"together": 2, "images": "streamed"}, "images are streamed"),
    ],
)
def test_what_cannot_be_trained_side_by_side_is_an_error(settings, message):
    shared = {name: settings.pop(name) for name in ("patience", "on_nan") if name in settings}
    with pytest.raises(ConfigError, match=message):
        fit_population(QUICK.replace(**shared), dataset(), seeds=range(4), **settings)


def test_more_members_than_memory_are_an_error_before_anything_compiles(monkeypatch):
    monkeypatch.setattr(mapped, "compile_mapped", None)
    monkeypatch.setattr(mapped, "memory_bytes", lambda devices: 6 << 20)
    most = mapped.most_at_once(make_plan(QUICK, dataset()))
    assert 1 < most < 20
    assert mapped.most_at_once(make_plan(QUICK, dataset(), devices=2)) == 2 * most
    with pytest.raises(ConfigError, match=f"at most {most} networks side by side.*found 20"):
        fit_population(QUICK, dataset(), seeds=range(30), together=20)


def test_by_default_members_take_turns_on_cpu(monkeypatch):
    monkeypatch.setattr(side_by_side, "compile_mapped", None)
    assert len(fit_population(QUICK.replace(steps=2), dataset(), seeds=range(2))) == 2


def test_convolutions_that_are_lowered_to_matmuls_are_so_on_every_platform():
    images, kernel = np.ones((2, 8, 8, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)

    def gradient(images, kernel):
        return jax.grad(lambda k: ops.conv(images, k, padding="VALID").sum())(kernel)

    def lowered(images, kernel):
        with ops.lower_to_matmuls():
            return gradient(images, kernel)

    def text(function):
        return jax.jit(function).trace(images, kernel).lower(lowering_platforms=("cuda",)).as_text()

    assert "stablehlo.convolution" in text(gradient)
    assert "stablehlo.convolution" not in text(lowered)
    np.testing.assert_allclose(
        jax.jit(lowered)(images, kernel), jax.jit(gradient)(images, kernel), rtol=1e-5
    )
