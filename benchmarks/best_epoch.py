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
from safetensors.numpy import load_file
from scipy.special import softmax

import mnistjax
from mnistjax.cli import one_line_errors

# Training images from which the batch statistics of averaged weights are computed, as in a run.
STATISTICS_IMAGES = 10_000
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # Rows and columns, in pixels.


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
    """
    trained = mnistjax.load_weights(run)
    epochs = round(trained.config.epochs or 0)
    steps = -(-len(dataset.train.labels) // trained.config.batch_size)
    found = sorted((run / "checkpoints").glob("step-*.safetensors"))
    # A run that was interrupted has a checkpoint within an epoch, too.
    files = [file for file in found if int(file.stem.removeprefix("step-")) % steps == 0]
    if len(files) != epochs:
        raise mnistjax.errors.RunError(
            f"expected {epochs} checkpoints, one per epoch, found {len(files)}: {run}"
        )
    averaged = [accuracies(predict(trained, file, dataset), dataset)[0] for file in files]
    each = [predict(trained, files[-1], dataset, shift) for shift in SHIFTS]
    shifted = np.mean(each, axis=0)
    plain = predict(trained, files[-1], dataset)
    last, last_clean = accuracies(plain, dataset)
    reported = json.loads((run / "result.json").read_text())["test_accuracy"]
    if abs(reported - last) > 1.5 / len(dataset.test.labels):
        raise mnistjax.errors.RunError(
            f"expected the accuracy {reported} of its result, found {last}: {run}"
        )
    shifted_both = accuracies(shifted, dataset)
    row = {
        "recipe": trained.config.recipe,
        "seed": trained.config.seed,
        "epochs": epochs,
        "last": last,
        "last_clean": last_clean,
        "shifted": shifted_both[0],
        "shifted_clean": shifted_both[1],
        "best": max(averaged),
        "best_epoch": 1 + int(np.argmax(averaged)),
        "by_epoch": averaged,
    }
    return row, {"plain": plain, "shifted": shifted}


def predict(
    trained: mnistjax.TrainedModel,
    checkpoint: Path,
    dataset: mnistjax.Dataset,
    shift: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Returns the probabilities of the test images, moved by a shift, float64 [N, num_classes]."""
    images = np.roll(dataset.test.images, shift, axis=(1, 2))
    logits = mnistjax.training.predict_logits(
        trained.model, variables_of(trained, checkpoint, dataset), images
    )
    return softmax(logits.astype(np.float64), axis=1)


def variables_of(
    trained: mnistjax.TrainedModel, checkpoint: Path, dataset: mnistjax.Dataset
) -> dict:
    """Returns the variables with which the library would evaluate a checkpoint."""
    tensors = load_file(checkpoint)
    averaged = any(name.startswith("state/ema_params/") for name in tensors)
    template = trained.variables
    found = {
        "params": subtree(tensors, "state/ema_params" if averaged else "state/params"),
        "batch_stats": subtree(tensors, "state/batch_stats"),
    }
    variables = {name: found[name] for name in template}
    if averaged and variables.get("batch_stats"):
        seed = jax.random.key(trained.config.seed)
        count = len(dataset.train.labels)
        batch_size = trained.config.batch_size
        order = mnistjax.data.epoch_order(seed, 0, count, batch_size)
        rows = max(1, STATISTICS_IMAGES // batch_size)
        images = jnp.asarray(dataset.train.images)
        remeasure = batch_stats_fn(trained.model)
        variables["batch_stats"] = remeasure(variables, images, order[:rows])
    return variables


@functools.cache
def batch_stats_fn(model: mnistjax.Model) -> jax.stages.Wrapped:
    """Returns the compiled function that measures batch statistics."""
    return jax.jit(
        mnistjax.training.make_batch_stats_fn(model), compiler_options=mnistjax.compiler_options()
    )


def subtree(tensors: dict[str, np.ndarray], prefix: str) -> dict:
    """Returns the arrays below a path as nested dictionaries."""
    tree: dict = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "/"):
            *parents, leaf = name.removeprefix(prefix + "/").split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = tensor
    return tree


def accuracies(probabilities: np.ndarray, dataset: mnistjax.Dataset) -> tuple[float, float]:
    """Returns the accuracy on all test images, and without labels known to be wrong."""
    right = probabilities.argmax(axis=1) == dataset.test.labels
    clean = np.delete(right, mnistjax.evaluation.find_label_errors(dataset))
    return float(right.mean()), float(clean.mean())


if __name__ == "__main__":
    main(tyro.cli(Arguments))
