r"""What choosing an epoch on the test images would buy, and what a vote of several runs gets.

Train with a checkpoint of every epoch, and give the run directories:

    mnistjax train --recipe accuracy --seed 0 --workdir runs/record-0 \
        --checkpoint-every 1epoch --keep-checkpoints 100
    python benchmarks/best_epoch.py runs/record-* --json benchmarks/results/best_epoch.jsonl

Every checkpoint is measured on all test images, and on those whose labels are not known to be
wrong. The last epoch is what the library reports. The best one is chosen on the test images, so it
says nothing about other images: it is what many published figures are.
"""

import dataclasses
import functools
import json
import statistics
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from conditions import write_json_lines
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file
from scipy.special import softmax

import mnistjax
from mnistjax.cli import one_line_errors

# Training images from which the batch statistics of averaged weights are computed, as in a run.
STATISTICS_IMAGES = 10_000
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # Rows and columns, in pixels, apart from none.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories of finished runs with a checkpoint of every epoch."""
    data_dir: Path | None = None
    """Folder of the data sets; MNISTJAX_DATA_DIR if not given."""
    json: Path | None = None
    """File of JSON lines, one for each run and one for the vote; none if not given."""


@one_line_errors
def main(arguments: Arguments) -> None:
    """Measures all runs, prints a table, and writes the file."""
    dataset = mnistjax.load_dataset("mnist", data_dir=arguments.data_dir)
    shape = (len(dataset.test.labels), dataset.info.num_classes)
    rows, votes = [], {"plain": np.zeros(shape), "shifted": np.zeros(shape)}
    for run in arguments.runs:
        row, probabilities = measure_run(run, dataset)
        rows.append(row)
        votes = {name: votes[name] + probabilities[name] for name in votes}
        print(
            f"{row['recipe']} seed {row['seed']}: last epoch {row['last']:.2%}, shifted "
            f"{row['shifted']:.2%}, best epoch {row['best']:.2%} (epoch {row['best_epoch']})",
            flush=True,
        )
    for name in ("last", "last_clean", "shifted", "shifted_clean", "best"):
        values = [100 * row[name] for row in rows]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:14} {statistics.mean(values):.3f} +- {deviation:.3f} %")
    vote = {"recipe": rows[0]["recipe"], "vote_of": len(rows)}
    for name, total in votes.items():
        vote[name], vote[f"{name}_clean"] = accuracies(total, dataset)
        print(f"vote of {len(rows)}, {name}: {vote[name]:.2%}, clean {vote[f'{name}_clean']:.2%}")
    if arguments.json:
        write_json_lines(arguments.json, [*rows, vote])


def measure_run(run: Path, dataset: mnistjax.Dataset) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures every checkpoint of a run on the test images.

    Args:
        run: the run directory.
        dataset: the data set on which it was trained.

    Returns:
        (row, probabilities): shares of test images; and float64 [N, num_classes] after the last
        epoch, "plain" and as the mean over five shifts by up to one pixel, "shifted".

    Raises:
        RunError: the run has no checkpoint of every epoch, did not use all training images, or
            reports another accuracy than that of its last checkpoint.
    """
    trained = mnistjax.load_weights(run)
    by_epoch = []
    for file in epoch_checkpoints(run, trained.config, len(dataset.train.labels)):
        network = dataclasses.replace(trained, variables=variables_of(trained, file, dataset))
        plain = predict(network, dataset)
        by_epoch.append(accuracies(plain, dataset)[0])
    shifted = np.mean([plain, *(predict(network, dataset, shift) for shift in SHIFTS)], axis=0)
    last, last_clean = accuracies(plain, dataset)
    reported = json.loads((run / "result.json").read_text())["test_accuracy"]
    if abs(reported - last) > 1.5 / len(dataset.test.labels):
        raise mnistjax.errors.RunError(
            f"expected the accuracy {reported} of its result, found {last}: {run}"
        )
    row = {
        "recipe": trained.config.recipe,
        "seed": trained.config.seed,
        "epochs": len(by_epoch),
        "last": last,
        "last_clean": last_clean,
        **dict(zip(("shifted", "shifted_clean"), accuracies(shifted, dataset), strict=True)),
        "best": max(by_epoch),
        "best_epoch": 1 + int(np.argmax(by_epoch)),
        "by_epoch": by_epoch,
    }
    return row, {"plain": plain, "shifted": shifted}


def epoch_checkpoints(run: Path, config: mnistjax.TrainConfig, count: int) -> list[Path]:
    """Returns the checkpoints at the ends of the epochs of `count` images, the first one first."""
    if config.validation_fraction:
        raise mnistjax.errors.RunError(
            f"expected a run on all training images, found validation_fraction="
            f"{config.validation_fraction}: {run}"
        )
    epochs = round(config.epochs or 0)
    steps = -(-count // config.batch_size)
    files = sorted((run / "checkpoints").glob("step-*.safetensors"))
    # A run that was interrupted has a checkpoint within an epoch, too.
    found = [file for file in files if int(file.stem.removeprefix("step-")) % steps == 0]
    if len(found) != epochs:
        raise mnistjax.errors.RunError(
            f"expected {epochs} checkpoints, one per epoch, found {len(found)}: {run}"
        )
    return found


def predict(
    network: mnistjax.TrainedModel, dataset: mnistjax.Dataset, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Returns the probabilities of the test images, moved by a shift, float64 [N, num_classes]."""
    logits = mnistjax.predict_logits(network, np.roll(dataset.test.images, shift, axis=(1, 2)))
    return softmax(logits.astype(np.float64), axis=1)


def variables_of(
    trained: mnistjax.TrainedModel, checkpoint: Path, dataset: mnistjax.Dataset
) -> dict:
    """Returns the variables with which the library would evaluate a checkpoint."""
    state = unflatten_dict(load_file(checkpoint), sep="/")["state"]
    averaged = state.get("ema_params")
    found = {"params": averaged or state["params"], "batch_stats": state.get("batch_stats")}
    variables = {name: found[name] for name in trained.variables}
    if averaged and "batch_stats" in variables:
        size, count = trained.config.batch_size, len(dataset.train.labels)
        order = mnistjax.data.epoch_order(jax.random.key(trained.config.seed), 0, count, size)
        rows, images = max(1, STATISTICS_IMAGES // size), jnp.asarray(dataset.train.images)
        variables["batch_stats"] = batch_stats_fn(trained.model)(variables, images, order[:rows])
    return variables


@functools.cache
def batch_stats_fn(model: mnistjax.Model) -> jax.stages.Wrapped:
    """Returns the compiled function that measures batch statistics."""
    stats_fn = mnistjax.training.make_batch_stats_fn(model)
    return jax.jit(stats_fn, compiler_options=mnistjax.compiler_options())


def accuracies(probabilities: np.ndarray, dataset: mnistjax.Dataset) -> tuple[float, float]:
    """Returns the accuracy on all test images, and without labels known to be wrong."""
    right = probabilities.argmax(axis=1) == dataset.test.labels
    clean = np.delete(right, mnistjax.evaluation.find_label_errors(dataset))
    return float(right.mean()), float(clean.mean())


if __name__ == "__main__":
    main(tyro.cli(Arguments))
