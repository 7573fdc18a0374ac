"""One run on any number of devices, with its images anywhere, is the run on one device."""

from __future__ import annotations

import threading

import jax
import numpy as np
import pytest
from small_runs import CONFIG, dataset

from mnistjax import Callback, CheckpointPolicy, Split, TrainConfig, fit, load_run
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import MODELS
from mnistjax.runs import compiled
from mnistjax.runs.placement import Placement, choose_placement
from mnistjax.runs.plan import make_plan
from mnistjax.runs.programs import make_programs
from mnistjax.runs.sealed import flatten_named
from mnistjax.training import Metrics

# The batch of 32 has rows to spare for 5 devices, and the last batch is ragged.
PLACES = {
    "eight": {"devices": 8},
    "uneven": {"devices": 5},
    "sharded": {"devices": 5, "images": "sharded"},
    "streamed": {"devices": 5, "images": "streamed"},
}
# With batch statistics, an average of the weights, augmentation and dropout.
RICH = CONFIG.replace(model="tiny", ema_decay=0.9, shift=1, optimizer="momentum", steps=9)
SETTINGS = {
    # A larger epsilon than the usual one, which blows rounding errors up to steps.
    "mlp": CONFIG.replace(steps=9, optimizer="momentum", learning_rate=0.02),
    "dropout": CONFIG.replace(steps=9, optimizer="momentum", model="cnn", learning_rate=0.02),
    "rich": RICH,
}


def arrays(fitted):
    return flatten_named({"state": fitted.state, "weights": fitted.trained.variables})


def assert_close(one, other):
    for name, array in arrays(one).items():
        np.testing.assert_allclose(arrays(other)[name], array, rtol=2e-5, atol=2e-5, err_msg=name)
    for row, expected in zip(other.history, one.history, strict=True):
        assert row["train_accuracy"] == expected["train_accuracy"]
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=2e-5)
        assert row["validation_accuracy"] == expected["validation_accuracy"]
    assert other.result["test_count"] == one.result["test_count"] == 77


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, arrays(one), arrays(other))


@pytest.fixture(scope="module", params=[name for name in SETTINGS if name != "dropout"])
def alone(request):
    config = SETTINGS[request.param]
    return config, fit(config, dataset())


@pytest.mark.parametrize("place", PLACES)
def test_many_devices_are_one_device(alone, place):
    config, one = alone
    many = fit(config, dataset(), **PLACES[place])
    assert_close(one, many)
    assert many.result["device_count"] == PLACES[place]["devices"]
    assert many.result["images"] == PLACES[place].get("images", "replicated")
    assert len(jax.tree.leaves(many.trained.variables)[0].devices()) == 1


def test_dropout_draws_the_same_masks_on_any_number_of_devices():
    config = SETTINGS["dropout"]
    assert_close(fit(config, dataset()), fit(config, dataset(), devices=5))


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("model", MODELS)
def test_many_devices_are_one_device_for_every_model(model, optimizer):
    rate = 0.01 if optimizer == "momentum" else 1e-3
    config = CONFIG.replace(model=model, optimizer=optimizer, learning_rate=rate, steps=3)
    one = fit(config, dataset())
    for place in PLACES.values():
        many = fit(config, dataset(), **place)
        for row, expected in zip(many.history, one.history, strict=True):
            assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=2e-5)


@pytest.mark.parametrize("devices", [1, 5])
@pytest.mark.parametrize("batches", [1, 2, 100])
def test_streamed_images_give_the_bits_of_resident_ones(alone, devices, batches, monkeypatch):
    config, _ = alone
    resident = fit(config, dataset(), devices=devices)
    compiled._compile.cache_clear()
    monkeypatch.setattr(compiled, "_GROUP_BYTES", batches * 35 * 144)
    assert_equal(resident, fit(config, dataset(), devices=devices, images="streamed"))
    compiled._compile.cache_clear()


def test_sharded_images_give_the_bits_of_replicated_ones():
    replicated, sharded = (
        fit(RICH, dataset(), devices=5, images=images) for images in ("replicated", "sharded")
    )
    assert_equal(replicated, sharded)


@pytest.mark.parametrize("stops", [False, True])
def test_streaming_copies_no_data_set_and_leaves_no_thread(stops):
    class Stop(Callback):
        def on_epoch(self, row):
            return stops

    plan = make_plan(CONFIG, dataset(), images="streamed")
    programs = make_programs(plan)
    state, metrics = programs.create_state(), programs.place(Metrics.empty(4))
    programs.train(state, metrics, programs.draw_order(0), 0, 2)
    assert len(plan.kept) < len(plan.dataset.train)
    assert "train" not in vars(plan)
    programs.close()
    fit(CONFIG.replace(epochs=2, steps=None), dataset(), images="streamed", callbacks=[Stop()])
    names = {thread.name for thread in threading.enumerate()}
    assert not [name for name in names if name.startswith("mnistjax-batches")]


def test_a_run_goes_on_with_the_same_bits_when_its_images_are_elsewhere(tmp_path):
    whole = fit(RICH, dataset(), workdir=tmp_path / "whole", devices=5)
    part = tmp_path / "part"
    fit(
        RICH,
        dataset(),
        workdir=part,
        checkpoints=CheckpointPolicy(every="4steps", keep=9),
        devices=5,
    )
    newest = sorted((part / "checkpoints").iterdir())
    newest[-1].unlink()  # As if it had been killed before its last step.
    (part / "result.json").unlink()
    resumed = fit(RICH, dataset(), workdir=part, resume=True, devices=5, images="streamed")
    assert_equal(whole, resumed)
    jax.tree.map(
        np.testing.assert_array_equal,
        flatten_named(load_run(part).variables),
        flatten_named(whole.trained.variables),
    )


def test_a_run_that_goes_on_with_another_number_of_devices_says_so(tmp_path, caplog):
    fit(CONFIG.replace(steps=3), dataset(), workdir=tmp_path, devices=2)
    (tmp_path / "result.json").unlink()
    fit(CONFIG.replace(steps=3), dataset(), workdir=tmp_path, resume=True, devices=3)
    assert "began with device_count 2 and goes on with 3" in caplog.text


def test_a_second_run_on_the_same_devices_compiles_nothing(caplog):
    config = CONFIG.replace(steps=5)
    fit(config, dataset(), devices=3)
    with jax.log_compiles():
        fit(config.replace(seed=5), dataset(), devices=3)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


@pytest.mark.parametrize("place", [{}, *PLACES.values()], ids=["one", *PLACES])
def test_an_epoch_sends_nothing_that_it_was_not_told_to(place):
    programs = make_programs(make_plan(CONFIG, dataset(), **place))
    metrics = programs.place(Metrics.empty(4))
    state, order = programs.create_state(), programs.draw_order(0)
    with jax.transfer_guard("disallow"):
        state, metrics = programs.train(state, metrics, order, 0, 6)
        jax.block_until_ready(state)
    assert int(metrics.count) == 182


@pytest.mark.parametrize("count", [1, 5, 8])
def test_every_image_is_trained_on_once_wherever_it_is(count):
    for images in ("replicated", "sharded", "streamed"):
        fitted = fit(CONFIG.replace(steps=6), dataset(), devices=count, images=images)
        counts = fitted.history[0]
        assert counts["epoch"] == 1
        rows = counts["images_per_second"] * counts["train_seconds"]
        assert rows == pytest.approx(182)


def split_of(count, shape=(2, 2, 1)):
    return Split(np.zeros((count, *shape), np.uint8), np.zeros(count, np.int32))


def test_one_cpu_is_used_unless_more_are_asked_for():
    assert choose_placement(split_of(1)).devices == tuple(jax.devices()[:1])
    assert choose_placement(split_of(1), devices="all").devices == tuple(jax.devices())
    with jax.default_device(jax.devices()[3]):
        assert choose_placement(split_of(1)).devices == (jax.devices()[3],)


@pytest.mark.parametrize("devices", [0, -1, 2.0, True, "many", "2"])
def test_what_is_no_number_of_devices_is_refused(devices):
    with pytest.raises(ConfigError, match=f"positive integer or 'all', found {devices!r}"):
        fit(CONFIG, dataset(), devices=devices)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="at most 8 cpu devices, found devices=9; JAX_NUM_CPU"):
        fit(CONFIG, dataset(), devices=9)
    with pytest.raises(UnknownNameError, match="did you mean 'streamed'"):
        fit(CONFIG, dataset(), images="stream")


@pytest.mark.parametrize(
    ("memory", "platform", "expected"),
    [
        (4 * 4000, "gpu", "replicated"),
        (4 * 4000 - 4, "gpu", "sharded"),
        (4 * 500, "gpu", "sharded"),
        (4 * 500 - 4, "gpu", "streamed"),
        (4 * 8 * 4000, "cpu", "replicated"),
        (4 * 8 * 4000 - 4, "cpu", "sharded"),
        (4 * 4000 - 4, "cpu", "streamed"),
    ],
)
def test_images_are_kept_where_they_fit(memory, platform, expected, monkeypatch):
    """4,000 bytes on eight devices: each GPU has memory of its own, virtual CPUs share one."""
    from mnistjax.runs import placement

    class Device:
        process_index = 0

        def __init__(self):
            self.platform = platform

        def memory_stats(self):
            return {"bytes_limit": memory} if platform == "gpu" else None

    monkeypatch.setattr(placement.os, "sysconf", lambda name: memory if "SIZE" in name else 1)
    images = split_of(1000).images
    assert placement._place_images(images, tuple(Device() for _ in range(8))) == expected


def test_a_placement_of_one_device_divides_nothing():
    placement = Placement((jax.devices()[0],))
    assert placement.round_up(7) == 7
    assert placement.whole.is_fully_replicated
    assert placement.process_count == 1


def test_half_precision_computes_in_bfloat16_and_keeps_float32():
    config = RICH.replace(dtype="bfloat16")
    half, full = fit(config, dataset()), fit(RICH, dataset())
    assert {leaf.dtype for leaf in jax.tree.leaves(half.trained.variables)} == {np.dtype("f4")}
    assert half.result["test_loss"] != full.result["test_loss"]
    assert half.result["test_loss"] == pytest.approx(full.result["test_loss"], rel=0.05)
    assert half.history[0]["train_loss"] == pytest.approx(full.history[0]["train_loss"], rel=0.02)


def test_saved_half_precision_stays_so(tmp_path):
    config = TrainConfig(**{**CONFIG.__dict__, "dtype": "bfloat16", "epochs": 1})
    fitted = fit(config, dataset(), workdir=tmp_path)
    loaded = load_run(tmp_path)
    assert loaded.config.dtype == "bfloat16"
    assert loaded.model is fitted.model
