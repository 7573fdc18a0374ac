"""Tunes a convolutional network: every combination of settings, over several seeds, with a plot.

Command:   python examples/tune_cnn.py
Expected:  a table with mean and standard deviation over the seeds, the settings that are best on
           the validation images and their test accuracy, 98.63 %, and runs/tune/sweep.png.
           It trains 18 networks for an epoch each, in a few minutes on two CPU cores; they need two
           compilations, as a learning rate is an argument of the compiled program.

Nothing is chosen by the test images. Try `--epochs 3`, `--seeds 5`, `--recipe mlp` and `--help`;
`mnistjax sweep` does the same for every setting.
"""

from pathlib import Path

import tyro

import mnistjax
from mnistjax.cli import one_line_errors, use_compilation_cache


@one_line_errors
def main() -> None:
    """Parses the flags and tunes the network."""
    use_compilation_cache()  # A second run loads the compiled programs.
    tyro.cli(tune)


def tune(
    recipe: str = "cnn",
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3),
    optimizers: tuple[str, ...] = ("adam", "momentum"),
    seeds: int = 3,
    epochs: float = 1.0,
    data_dir: Path | None = None,
    workdir: Path = Path("runs/tune"),
) -> None:
    """Train a network with every combination of optimizer and learning rate.

    Args:
        recipe: Recipe with the other settings.
        learning_rates: Learning rates.
        optimizers: Optimizers.
        seeds: Number of networks for each combination.
        epochs: Passes over the training images.
        data_dir: Folder of the data sets.
        workdir: Folder for the runs and the plot; what it already holds is resumed.
    """
    dataset = mnistjax.load_dataset(data_dir=data_dir)
    population = mnistjax.fit_population(
        mnistjax.get_recipe(recipe).replace(epochs=epochs, validation_fraction=0.1),
        dataset,
        optimizer=optimizers,
        learning_rate=learning_rates,
        seeds=range(seeds),
        workdir=workdir,
        resume=True,
        on_member=lambda row: print(f"network {row['member']}: {row['error'] or 'trained'}"),
    )
    for row in population.summary():
        mean, deviation = row["validation_accuracy_mean"], row["validation_accuracy_sd"] or 0
        settings = f"{row['optimizer']:8s} {row['learning_rate']:<8g}"
        if mean is not None:
            print(f"{settings} validation {100 * mean:.2f} ± {100 * deviation:.2f} %")
    best = population.best()
    print(f"best: {best.config.optimizer} at {best.config.learning_rate:g}, ", end="")
    accuracy = mnistjax.evaluate(best, dataset.test).summary()["accuracy"]
    print(f"test accuracy {accuracy:.2%}")
    figure = mnistjax.plots.sweep(population, "learning_rate")
    (workdir / "sweep.png").write_bytes(mnistjax.plots.render_png(figure))
    print(f"plot in {workdir / 'sweep.png'}")


if __name__ == "__main__":
    main()
