"""What is shown of the results of benchmarks is what they measured."""

import sys
from pathlib import Path

import pytest

import mnistjax
from mnistjax.cli import listing

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import accuracy
import conditions
import readme


def test_the_seeds_of_each_recipe_are_drawn():
    rows = [{"recipe": name, "test_accuracy": 0.9} for name in ("mlp", "cnn", "mlp")]
    assert readme.accuracies_by_recipe(rows) == {"mlp": [0.9, 0.9], "cnn": [0.9]}


def test_throughput_table_of_the_readme():
    row = {"recipe": "mlp", "device": "chip", "devices": 2, "dtype": "float32"}
    row |= {"batch_size_per_device": 8, "images_per_second_per_device": 1234.5}
    row |= {"share_of_peak": 0.123}
    cells = [("training", "device"), ("training", "host"), ("inference", "device")]
    rows = [row | {"phase": phase, "feed": feed} for phase, feed in cells]
    last = readme.throughput_table(rows).splitlines()[-1]
    expected = "| `mlp` | 2 x chip | float32 | 8 | 1,234 | 1,234 | 12% | 1,234 |"
    assert last == expected
    assert "| 12% |  |" in readme.throughput_table(rows[:2])


def test_new_accuracy_rows_replace_old_ones_and_no_others():
    old = [{"recipe": "mlp", "seed": 0, "a": 1}, {"recipe": "softmax", "seed": 0, "a": 1}]
    new = [{"recipe": "mlp", "seed": 1, "a": 2}, {"recipe": "mlp", "seed": 0, "a": 2}]
    rows = accuracy.merge(old, new)
    assert [(row["recipe"], row["seed"], row["a"]) for row in rows] == [
        ("softmax", 0, 1),
        ("mlp", 0, 2),
        ("mlp", 1, 2),
    ]


def test_what_mnistjax_recipes_shows_is_what_was_measured():
    measured = readme.summarize_accuracy(readme.RESULTS / "accuracy.jsonl")
    assert listing.read_measured() == measured, "run python benchmarks/readme.py"
    assert list(measured) == list(mnistjax.runs.RECIPES)


def test_accuracy_is_summarized_over_the_seeds(tmp_path):
    shared = {"recipe": "mlp", "parameters": 7, "epochs": 2.0, "device": "chip", "versions": {}}
    rows = [
        {**shared, "validation_accuracy": None, "test_accuracy": accuracy, "train_seconds": seconds}
        for accuracy, seconds in ((0.9, 1.0), (0.94, 9.0), (0.92, 2.0))
    ]
    conditions.write_json_lines(tmp_path / "accuracy.jsonl", rows)
    (found,) = readme.summarize_accuracy(tmp_path / "accuracy.jsonl").values()
    assert (found["seeds"], found["train_seconds"]) == (3, 2.0)
    assert found["test_accuracy"] == pytest.approx(0.92)
    assert found["test_accuracy_sd"] == pytest.approx(0.02)
    assert found["validation_accuracy"] is found["validation_accuracy_sd"] is None
    last = readme.accuracy_table({"mlp": found}).splitlines()[-1]
    assert last.endswith(" | 7 | 2 | 3 |  | 92.00 ± 2.00 | 97 validation |")
