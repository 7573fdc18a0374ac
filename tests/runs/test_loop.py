"""`fit` and `evaluate`: what a run promises, writes and refuses."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset

import mnistjax
from mnistjax import Dataset, DatasetInfo, Split, TrainConfig, evaluate, fit, load_dataset, load_run
from mnistjax.data import epoch_order, split_validation
from mnistjax.errors import ConfigError, DataFormatError, NonFiniteLossError, RunError
from mnistjax.runs import RECIPES, build_optimizer, build_train_step, read_result
from mnistjax.runs.plan import make_plan
from mnistjax.training import Metrics, create_train_state, make_epoch_fn

RUN_FILES = {
    *("config.json", "metrics.jsonl", "result.json", "weights.safetensors", ".lock"),
    "checkpoints",
}
PROMISED = {
    *("recipe", "dataset", "source", "seed", "epochs", "steps", "parameters", "train_accuracy"),
    *("validation_accuracy", "test_accuracy", "test_loss", "test_count", "compile_seconds"),
    *("train_seconds", "total_seconds", "images_per_second", "device", "device_count", "versions"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that several tests look at."""
    workdir = tmp_path_factory.mktemp("runs") / "new" / "run"
    return fit(CONFIG, dataset(), workdir=workdir)


def manual_accuracy(trained, split):
    images = split.images.astype(np.float32) / np.float32(255)
    logits, _ = jax.jit(trained.model.apply)(trained.variables, images)
    return np.mean(np.argmax(logits, -1) == split.labels)


def test_learns(run):
    assert run.result["test_accuracy"] >= 0.95
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_the_run_directory_holds_the_files_of_a_run_and_nothing_else(run):
    assert {path.name for path in run.workdir.iterdir()} == RUN_FILES
    assert TrainConfig.from_json((run.workdir / "config.json").read_text()) == CONFIG
    lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.history
    assert read_result(run.workdir) == run.result


def test_the_result_has_every_promised_key_with_a_sensible_value(run):
    result = run.result
    assert set(result) >= PROMISED
    assert (result["recipe"], result["dataset"], result["seed"]) == ("custom", "squares", 0)
    assert result["source"] == "drawn by a test"
    assert result["parameters"] == 144 * 100 + 100 + 100 * 4 + 4
    assert result["train_count"] + result["validation_count"] == 203
    assert result["test_count"] == 77
    assert (result["epochs"], result["steps"]) == (3.0, 3 * result["steps_per_epoch"])
    assert 0 < result["compile_seconds"] < result["total_seconds"]
    assert result["train_seconds"] < result["total_seconds"] - result["compile_seconds"]
    assert result["images_per_second"] * result["train_seconds"] == pytest.approx(
        3 * result["train_count"]
    )
    assert result["device"].startswith("cpu, ")
    assert result["device_count"] == 1
    assert set(result["versions"]) >= {"python", "mnistjax", "jax", "jaxlib", "flax", "optax"}


def test_the_history_has_a_row_per_epoch(run):
    assert [row["epoch"] for row in run.history] == [1.0, 2.0, 3.0]
    assert all(row["images_per_second"] > 0 for row in run.history)


def test_the_test_accuracy_is_that_of_the_saved_weights_and_of_counting_by_hand(run):
    trained = load_run(run.workdir)
    metrics = evaluate(trained, dataset().test)
    assert metrics.summary()["accuracy"] == run.result["test_accuracy"]
    assert metrics.summary()["loss"] == run.result["test_loss"]
    # Count over count, in double precision.
    assert run.result["test_accuracy"] == int(metrics.correct) / 77
    assert run.result["test_accuracy"] == manual_accuracy(run.trained, dataset().test)
    assert trained.config == CONFIG
    assert (trained.result, list(trained.history)) == (run.result, run.history)


@pytest.mark.parametrize("batch_size", [10, 77, 78])
def test_evaluate_counts_every_image_once_at_any_batch_size(run, batch_size):
    split = dataset().test
    metrics = evaluate(run.trained, split, batch_size=batch_size)
    assert metrics.count == 77
    np.testing.assert_array_equal(metrics.confusion.sum(1), np.bincount(split.labels))
    whole = evaluate(run.trained, split)
    np.testing.assert_array_equal(metrics.confusion, whole.confusion)
    np.testing.assert_allclose(metrics.loss_sum, whole.loss_sum, rtol=1e-5)


def test_evaluate_refuses_an_empty_batch(run):
    with pytest.raises(ConfigError, match="must be at least 1, found 0"):
        evaluate(run.trained, dataset().test, batch_size=0)


def test_labels_of_a_class_that_the_network_lacks_are_refused(run):
    split = dataset().test
    other = Split(split.images, np.where(np.arange(77) == 5, 4, split.labels).astype(np.int32))
    with pytest.raises(DataFormatError, match=r"labels from 0 to 3, found 4 at index 5"):
        evaluate(run.trained, other)


def test_images_of_another_shape_or_range_are_refused(run):
    for images in (np.zeros((2, 8, 8, 1), np.uint8), np.full((2, 12, 12, 1), 255.0)):
        with pytest.raises(DataFormatError, match=r"expected (images|pixels)"):
            mnistjax.predict_logits(run.trained, images)


def test_logits_of_no_image_have_the_shape_of_logits(run):
    assert mnistjax.predict_logits(run.trained, dataset().test.images[:0]).shape == (0, 4)


def test_a_second_fit_of_another_seed_learning_rate_and_length_compiles_nothing(run, caplog):
    changed = CONFIG.replace(seed=7, learning_rate=1e-3, epochs=2, recipe="other")
    with jax.log_compiles():
        other = fit(changed, dataset())
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
    assert (other.state.params["Dense_0"]["bias"] != run.state.params["Dense_0"]["bias"]).any()


NUMBERS = [
    ({"optimizer": "adamw", "b1": 0.8, "weight_decay": 0.1}, {"b2": (0.9, 0.99)}),
    ({"optimizer": "adamw"}, {"b1": (0.7, 0.9), "weight_decay": (0.0, 5.0)}),
    ({"optimizer": "rmsprop"}, {"momentum": (0.5, 0.9), "label_smoothing": (0.0, 0.5)}),
    ({"schedule": "cosine", "warmup": 0.5}, {"learning_rate": (1e-3, 3e-3), "clip_norm": (0.1, 1)}),
    ({"rotate": 5}, {"scale": (0.1, 0.3), "rotate": (1, 90), "ema_decay": (0.1, 0.9)}),
    ({"shift": 1}, {"elastic": (0.5, 3)}),
]


@pytest.mark.parametrize(("settings", "numbers"), NUMBERS)
def test_runs_that_differ_in_numbers_share_programs_but_not_results(settings, numbers, caplog):
    config = CONFIG.replace(epochs=1, **settings)
    first = fit(config.replace(**{name: low for name, (low, _) in numbers.items()}), dataset())
    for name, (low, high) in numbers.items():
        others = {other: values[0] for other, values in numbers.items()}
        changed = {**others, name: high}
        with jax.log_compiles():
            other = fit(config.replace(**changed), dataset())
        assert not [record for record in caplog.records if "Compiling" in record.getMessage()], name
        ends = (run.trained.variables["params"]["Dense_0"]["kernel"] for run in (first, other))
        assert np.any(np.not_equal(*ends)), (name, low, high)


def test_numbers_as_arguments_are_the_numbers_of_the_settings():
    config = CONFIG.replace(
        optimizer="adamw",
        steps=3,
        b1=0.7,
        b2=0.9,
        weight_decay=0.1,
        clip_norm=0.5,
        label_smoothing=0.1,
        ema_decay=0.5,
        rotate=10,
        scale=0.1,
    )
    plan = make_plan(config, dataset())
    fitted = fit(config, dataset())
    optimizer = build_optimizer(config, plan.steps)
    state = create_train_state(
        plan.model, optimizer, np.zeros((1, 12, 12, 1), np.float32), key=jax.random.key(0), ema=True
    )
    epoch = jax.jit(make_epoch_fn(build_train_step(config, plan.model, optimizer)))
    order = epoch_order(jax.random.key(0), 0, len(plan.kept), config.batch_size)
    empty = Metrics.empty(4)
    state, _ = epoch(state, empty, plan.train.images, plan.train.labels, order, 0, 3)
    for ours, theirs in zip(
        jax.tree.leaves(fitted.state.ema_params), jax.tree.leaves(state.ema_params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_runs_over_several_seeds_are_validated_on_the_same_images():
    plans = [make_plan(CONFIG.replace(seed=seed), dataset()) for seed in (0, 1)]
    np.testing.assert_array_equal(plans[0].validation.images, plans[1].validation.images)
    moved = make_plan(CONFIG.replace(validation_seed=1), dataset())
    assert (plans[0].validation.images != moved.validation.images).any()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(run):
    def parameters(seed):
        return fit(CONFIG.replace(seed=seed), dataset()).state.params

    jax.tree.map(np.testing.assert_array_equal, parameters(0), run.state.params)
    assert (parameters(1)["Dense_0"]["kernel"] != run.state.params["Dense_0"]["kernel"]).any()


@pytest.mark.parametrize(("length", "steps"), [({"epochs": 1.5}, 9), ({"steps": 4}, 4)])
def test_a_run_may_end_within_an_epoch(length, steps):
    result = fit(CONFIG.replace(**length), dataset())
    per_epoch = result.result["steps_per_epoch"]
    assert per_epoch == 6
    assert result.state.step == result.result["steps"] == result.history[-1]["step"] == steps
    assert result.result["epochs"] == result.history[-1]["epoch"] == steps / per_epoch
    assert result.workdir is None


def test_all_training_images_are_trained_on_where_none_is_held_out():
    result = fit(CONFIG.replace(validation_fraction=0.0, epochs=1), dataset())
    assert result.result["train_count"] == 203
    assert result.result["validation_count"] == 0
    assert result.result["validation_accuracy"] is None
    assert "validation_accuracy" in result.history[0]


def test_early_stopping_returns_the_weights_of_the_best_epoch(tmp_path):
    # A learning rate that leaves good places again.
    config = CONFIG.replace(epochs=40, learning_rate=0.3, patience=2)
    result = fit(config, dataset(), workdir=tmp_path)
    accuracies = [row["validation_accuracy"] for row in result.history]
    best = int(np.argmax(accuracies))
    assert len(accuracies) == best + 1 + config.patience < 40
    assert result.state.step == result.result["steps"] == result.history[best]["step"]
    assert result.result["validation_accuracy"] == accuracies[best]
    assert result.result["epochs"] == best + 1
    _, validation = split_validation(dataset().train, 0.1, seed=0)
    assert evaluate(load_run(tmp_path), validation).summary()["accuracy"] == accuracies[best]


def test_the_averaged_weights_with_statistics_of_their_own_are_evaluated_and_saved(tmp_path):
    config = CONFIG.replace(model="tiny", optimizer="sgd", ema_decay=0.9, epochs=1)
    fitted = fit(config, dataset(), workdir=tmp_path)
    averaged, variables = fitted.state.ema_params, fitted.trained.variables
    assert (averaged["Dense_0"]["kernel"] != fitted.state.params["Dense_0"]["kernel"]).any()
    saved = load_run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, saved.variables, variables)
    jax.tree.map(np.testing.assert_array_equal, saved.variables["params"], averaged)
    raw = jax.tree.leaves(fitted.state.batch_stats)
    fresh = jax.tree.leaves(variables["batch_stats"])
    assert all((one != other).any() for one, other in zip(raw, fresh, strict=True))
    assert fitted.result["test_accuracy"] == manual_accuracy(saved, dataset().test)


@pytest.mark.parametrize(
    "length",
    [{"epochs": 3}, {"steps": 1}, {"steps": 1, "validation_fraction": 0.0}],
    ids=["epochs", "last-step", "last-step-without-validation"],
)
def test_a_loss_that_is_not_finite_ends_the_run_without_a_result(tmp_path, length):
    """Also where it is the last update that spoils the weights."""
    config = CONFIG.replace(learning_rate=1e38, **length)
    recorder = Recorder()
    with pytest.raises(
        NonFiniteLossError,
        match=r"loss .*step \d+ became (nan|inf), with learning rate 1e\+38 and norms up to "
        r"[\w.+]+ \(Dense_\d/(bias|kernel)\), .*: a learning_rate below 1e\+38",
    ):
        fit(config, dataset(), workdir=tmp_path, callbacks=[recorder])
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("config.json", "metrics.jsonl", "checkpoints", ".lock")
    }
    assert recorder.calls[-1][1] == "close"
    with pytest.raises(RunError, match=r"expected a finished run, found no result\.json"):
        read_result(tmp_path)


def test_a_directory_that_holds_a_run_is_kept(tmp_path):
    fit(CONFIG.replace(steps=1), dataset(), workdir=tmp_path)
    before = content(tmp_path)
    with pytest.raises(RunError, match=f"found a finished run in {tmp_path}"):
        fit(CONFIG, dataset(), workdir=tmp_path)
    assert content(tmp_path) == before


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_overwriting_replaces_the_run_and_nothing_else(tmp_path):
    fit(CONFIG.replace(steps=1), dataset(), workdir=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(NonFiniteLossError):
        fit(CONFIG.replace(learning_rate=1e38), dataset(), workdir=tmp_path, overwrite=True)
    # The new run has not shown that it can train, so the old one is kept.
    assert content(tmp_path) == before
    result = fit(CONFIG.replace(steps=2), dataset(), workdir=tmp_path, overwrite=True)
    assert read_result(tmp_path)["steps"] == result.result["steps"] == 2
    assert {path.name for path in tmp_path.iterdir()} == RUN_FILES | {"notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", [".", "sub"])
def test_a_file_where_a_directory_is_needed_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"expected a writable work directory, found .*file"):
        fit(CONFIG, dataset(), workdir=tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_setting_that_does_not_go_with_the_data_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="at most the number of images, 182, found 183"):
        fit(CONFIG.replace(batch_size=183), dataset(), workdir=tmp_path / "run")
    with pytest.raises(ConfigError, match="leaves a side without an image of every class"):
        fit(CONFIG.replace(validation_fraction=0.001), dataset(), workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", [4, 8])
def test_images_too_small_for_the_network_are_refused_before_anything_is_written(tmp_path, side):
    images = np.zeros((40, side, side, 1), np.uint8)
    split = Split(images, np.arange(40, dtype=np.int32) % 4)
    small = Dataset(split, split, DatasetInfo("small", 4, image_shape=(side, side, 1)))
    with pytest.raises(ConfigError, match=f"model 'cnn' does not fit images of shape .{side}, "):
        fit(CONFIG.replace(model="cnn"), small, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_steps_than_the_counter_can_count_are_refused():
    with pytest.raises(ConfigError, match="expected at most 2147483647 steps"):
        fit(CONFIG.replace(epochs=1e6, batch_size=1), many_images())


def many_images():
    """As many images as make 10^6 epochs of one-image steps too many."""
    split = Split(np.zeros((3000, 1, 1, 1), np.uint8), np.arange(3000, dtype=np.int32) % 4)
    return Dataset(split, split, DatasetInfo("many", 4, image_shape=(1, 1, 1)))


def test_settings_that_name_another_data_set_are_refused():
    with pytest.raises(ConfigError, match="name data set 'mnist', found 'squares'"):
        fit(CONFIG.replace(dataset="mnist"), dataset())


@pytest.mark.mnist
def test_a_recipe_reaches_its_accuracy_on_the_real_images(mnist_dir):
    data = load_dataset("mnist", data_dir=mnist_dir, download=False)
    result = fit(mnistjax.get_recipe("speed"), data).result
    assert result["test_count"] == 10_000
    assert result["test_accuracy"] >= RECIPES["speed"].target / 100
