"""The benchmarks count, summarize and write as documented; speed itself is not tested."""

import itertools
import json
import math
import statistics
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

import mnistjax

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import checkpoints
import conditions
import flops
import fresh_process
import peers
import populations
import programs
import readme
import startup
import streaming
import throughput
import time_to_accuracy

CONDITIONS = {"versions", "device", "platform", "processor", "cores", "threads", "command"}


def test_flops_are_those_counted_by_hand():
    def layers(name):
        return flops.layer_flops(mnistjax.create_model(name), (28, 28, 1))

    # Output pixels x kernel x inputs x outputs, 2 FLOPs each.
    cnn = [2 * 26 * 26 * 9 * 1 * 32, 2 * 11 * 11 * 9 * 32 * 64, 2 * 1600 * 10]
    assert layers("cnn") == cnn
    assert flops.training_flops(cnn) == 14_256_384
    assert layers("mlp-50-50") == [2 * 784 * 50, 2 * 50 * 50, 2 * 50 * 10]
    stages = [2 * side**2 * 9 * i * o for side, i, o in [(28, 1, 32), (14, 32, 64), (7, 64, 128)]]
    dense = [2 * 6272 * 128, 2 * 128 * 64, 2 * 64 * 10]
    assert layers("cnn-bn") == stages + dense


# Each example traces a network.
@settings(max_examples=5)
@given(st.lists(st.integers(1, 40), max_size=3), st.integers(1, 9), st.integers(2, 12))
def test_flops_of_dense_networks(widths, side, classes):
    model = mnistjax.create_model("mlp", features=tuple(widths), num_classes=classes)
    sizes = [side * side, *widths, classes]
    expected = [2 * i * o for i, o in itertools.pairwise(sizes)]
    assert flops.layer_flops(model, (side, side, 1)) == expected


def test_flops_in_loops():
    square = np.ones((3, 3), np.float32)

    def model_of(function):
        return mnistjax.Model(
            init=lambda key, images: {"params": {}, "batch_stats": {}},
            apply=lambda variables, images, **_: (function(images), {}),
        )

    def scanned(images):
        return jax.lax.scan(lambda x, _: (x @ square, None), images, length=5)[0]

    def repeated(images):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ square, images)

    def doubled(images):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + x, images)

    shape = (4, 3, 3)
    assert flops.layer_flops(model_of(scanned), shape) == [5 * 2 * 4 * 3 * 3 * 3]
    assert flops.layer_flops(model_of(doubled), shape) == []
    with pytest.raises(ValueError, match="unknown length"):
        flops.layer_flops(model_of(repeated), shape)


@pytest.mark.parametrize(("dtype", "sizes"), [(jnp.float32, (8, 16)), (jnp.bfloat16, (8,))])
def test_matmul_peak_is_a_rate(dtype, sizes):
    assert 0 < flops.matmul_peak(dtype, sizes=sizes, seconds=0.0) < math.inf


def test_command_is_told_without_paths():
    words = ["/somewhere/benchmarks/peers.py", "--data-dir", "/data", "--rounds", "3"]
    words += ["--python=/bin/python", "--json", "results/a b.jsonl"]
    expected = "python benchmarks/peers.py --rounds 3 --json 'results/a b.jsonl'"
    assert conditions.command(words) == expected


def test_table_is_markdown():
    rows = [{"a": 1, "b": "long text"}, {"a": 100, "b": ""}]
    text = conditions.table(rows, {"n": lambda row: str(row["a"]), "text": lambda row: row["b"]})
    lines = text.split("\n")
    assert [line.strip("|").split("|")[0].strip() for line in lines] == ["n", "-----", "1", "100"]
    assert len({len(line) for line in lines}) == 1


@given(st.lists(st.floats(0.1, 1e6), min_size=1))
def test_spread(values):
    figures = conditions.spread("x", values)
    assert figures["x_min"] <= figures["x"] <= figures["x_max"]
    assert figures["x"] == pytest.approx(np.median(values))
    assert figures["x_runs"] == values


def test_json_lines(tmp_path):
    rows = [{"a": 1}, {"a": [2.5, None]}]
    conditions.write_json_lines(tmp_path / "new" / "rows.jsonl", rows)
    conditions.write_json_lines(None, rows)
    assert readme.read_lines(tmp_path / "new", "rows") == rows


@pytest.mark.parametrize(
    "program",
    [throughput, time_to_accuracy, startup, peers, populations, checkpoints, streaming],
    ids=lambda program: program.__name__,
)
def test_arguments_parse(program):
    assert tyro.cli(program.Arguments, args=[]) == program.Arguments()


def test_the_cost_of_a_population_is_per_network():
    arguments = populations.Arguments(members=2, steps=3, rounds=2)
    row = populations.measure("softmax", mnistjax.load_dataset("digits"), arguments)
    assert set(row) >= CONDITIONS | {"caches", "vectors"}
    for one, both, cost in zip(
        row["one_seconds_runs"], row["population_seconds_runs"], row["cost_runs"], strict=True
    ):
        assert cost == pytest.approx(both / (2 * one))


def tiny_images(count):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return mnistjax.Split(images, random.integers(0, 10, count, np.int32))


FLOAT32_ROWS = [(*program, "float32") for program in programs.PROGRAMS]
BFLOAT16_ROWS = [(*program, "bfloat16") for program in programs.PROGRAMS]


@pytest.mark.parametrize(
    ("phase", "feed", "dtype"),
    [
        *FLOAT32_ROWS,
        BFLOAT16_ROWS[-1],
        *(pytest.param(*row, marks=pytest.mark.full) for row in BFLOAT16_ROWS[:-1]),
    ],
)
def test_throughput_row(phase, feed, dtype):
    arguments = throughput.Arguments(runs=2, seconds=0.0, dtype=dtype)
    case = throughput.make_case(mnistjax.get_recipe("mlp"), 4, 2, tiny_images(21), arguments)
    row = throughput.measure(case, phase, feed, 1e9, arguments)
    layers = [2 * 784 * 100, 2 * 100 * 10]
    counted = sum(layers) if phase == "inference" else 3 * sum(layers) - layers[0]
    assert row["flops_per_image"] == counted
    assert (row["batch_size_per_device"], row["devices"], row["dtype"]) == (4, 2, dtype)
    assert row["flops_per_second_per_device"] == pytest.approx(
        row["images_per_second_per_device"] * counted
    )
    assert row["share_of_peak"] == pytest.approx(row["flops_per_second_per_device"] / 1e9)
    np.testing.assert_allclose(
        [4 / seconds for seconds in row["step_seconds_runs"]],
        row["images_per_second_per_device_runs"],
    )
    assert row["compile_seconds"] > 0
    throughput.add_efficiency([row])
    shown = conditions.table([row], throughput.COLUMNS)
    assert shown.count("\n") == 2
    json.dumps(row)


def test_checkpoint_row():
    split = tiny_images(512)
    dataset = mnistjax.Dataset(split, split, mnistjax.DatasetInfo("random", 10))
    row = checkpoints.measure("softmax", dataset, checkpoints.Arguments(steps=3))
    assert row["bytes"] > 4 * 7_850
    assert len(row["checkpoint_seconds_runs"]) == 2
    # On a busy machine the cost may be below zero: it is a difference of two measured times.
    cost = statistics.median(row["checkpoint_seconds_runs"])
    share = cost / max(checkpoints.DEFAULT_SECONDS, checkpoints.DEFAULT_SHARE * cost)
    assert row["default_share"] == pytest.approx(share)
    assert row["default_share"] <= 0.02
    assert len(conditions.table([row], checkpoints.COLUMNS).splitlines()) == 3


@pytest.mark.parametrize("mapped", [False, True])
def test_streaming_row(tmp_path, mapped):
    dataset = streaming.random_dataset(120, tmp_path if mapped else None)
    assert isinstance(dataset.train.images, np.memmap) == mapped
    row = streaming.measure("softmax", dataset, streaming.Arguments(batch_size=16, runs=2))
    rates = zip(row["resident_images_per_second_runs"], row["ratio_runs"], strict=True)
    np.testing.assert_allclose([a * b for a, b in rates], row["streamed_images_per_second_runs"])
    assert len(conditions.table([row], streaming.COLUMNS).splitlines()) == 3


def test_measured_training_is_training():
    """The resident program really takes its steps: on few images, the loss falls."""
    arguments = throughput.Arguments()
    case = throughput.make_case(mnistjax.get_recipe("mlp"), 8, 1, tiny_images(16), arguments)
    run, _ = programs.PROGRAMS["training", "device"](case)
    sums = [0.0]
    for _ in range(30):
        state, metrics = run()
        sums.append(float(metrics.loss_sum))
    losses = np.diff(sums)
    assert int(state.step) == 30 * case.steps
    assert losses[-1] < losses[0] / 2


def test_throughput_refuses_what_is_not_there():
    weak, strong = throughput.Arguments(), throughput.Arguments(scaling="strong")
    for batch_size, devices, arguments, message in (
        (1, 99, weak, "from 1 to 8 devices, found --devices 99"),
        (1, 0, weak, "from 1 to 8 devices, found --devices 0"),
        (9, 1, weak, "batch_size"),
        (5, 2, strong, "a batch size that 2 devices can share, found 5"),
    ):
        config, split = mnistjax.get_recipe("mlp"), tiny_images(8)
        with pytest.raises(mnistjax.errors.ConfigError, match=message):
            throughput.make_case(config, batch_size, devices, split, arguments)


@pytest.fixture(scope="module")
def runs():
    """A cold and a warm training on the embedded digits, each in a process of its own."""
    config = mnistjax.get_recipe("softmax").replace(steps=startup.STEPS, dataset="digits")
    with pytest.MonkeyPatch.context() as patch, fresh_process.fresh_place("digits", None) as place:
        # As in the process of the tests: the few steps are compiled for longer than they run.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        found = [fresh_process.run_once(config, place) for _ in range(2)]
        assert any(place.compiled.iterdir())
    assert not place.compiled.exists()
    return found


def test_startup_rows(runs):
    rows = [startup.make_row("softmax", *pair) for pair in zip(("cold", "warm"), runs, strict=True)]
    for row in rows:
        stages = [row[f"{stage}_seconds"] for stage in startup.STAGES]
        assert all(seconds >= 0 for seconds in stages)
        assert row["total_seconds"] == pytest.approx(sum(stages))
        assert set(row) >= CONDITIONS
        assert startup.summarize([row])["total_seconds_max"] == row["total_seconds"]
    assert len(readme.startup_table(rows).splitlines()) == 4


def test_time_to_accuracy_rows(runs):
    rows = [time_to_accuracy.make_row("cold", 0.0, runs[0])]
    rows.append(time_to_accuracy.make_row("warm", 0.0, runs[1]))
    for row, run in zip(rows, runs, strict=True):
        assert set(row) >= CONDITIONS
        assert "source" not in row
        assert row["test_count"] == 360
        assert row["steps"] == startup.STEPS
        assert row["process_seconds"] == pytest.approx(sum(run["stages"].values()))
    # The same seed in two processes, one of which found its programs compiled.
    assert rows[0]["test_accuracy"] == rows[1]["test_accuracy"]
    assert len(readme.time_to_accuracy_table(rows).splitlines()) == 3


def test_a_run_that_fails_ends_in_its_message(tmp_path):
    config = mnistjax.get_recipe("softmax").replace(dataset=str(tmp_path / "nowhere"))
    place = fresh_process.FreshPlace(tmp_path, tmp_path, tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        fresh_process.run_once(config, place)


def test_fresh_place_copies_published_files_alone(tmp_path):
    folder = tmp_path / "mnist"
    (folder / ".mnistjax").mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"pixels")
    with fresh_process.fresh_place("mnist", tmp_path) as place:
        copied = place.data_dir / "mnist"
        assert [path.name for path in copied.iterdir()] == ["train-images-idx3-ubyte.gz"]


def seed_row(accuracy, cache, seconds):
    names = ("train", "evaluation", "compile", "process")
    times = {f"{name}_seconds": seconds for name in names}
    accuracies = {"test_accuracy": accuracy, "target_accuracy": 0.9}
    return {"recipe": "r", "cache": cache, **accuracies, **times}


def test_all_seeds_are_summarized():
    rows = [seed_row(0.89, "cold", 9.0), seed_row(0.91, "warm", 1.0), seed_row(0.93, "warm", 3.0)]
    summary = time_to_accuracy.summarize(rows)
    assert summary["accuracy_mean"] == pytest.approx(0.91)
    assert summary["accuracy_sd"] == pytest.approx(0.02)
    assert summary["reached"]
    assert (summary["compile_seconds_cold"], summary["compile_seconds_warm"]) == (9.0, 2.0)
    assert not time_to_accuracy.summarize(rows[:1])["reached"]
    assert "0.930" not in conditions.table([summary], time_to_accuracy.COLUMNS)
    assert "91.000 ± 2.000" in conditions.table([summary], time_to_accuracy.COLUMNS)
