"""Trains four networks over several seeds and compares their accuracy, size and training time.

Command:   python examples/compare_models.py
Expected:  softmax 91.29 +- 0.12 %, mlp 94.56 +- 0.06 %, cnn 98.63 +- 0.08 %, cnn-bn 98.99 +- 0.07 %
           on the test images of MNIST, after two epochs, over 3 seeds. The printed tables show
           whether the differences are significant. It takes a few minutes on two CPU cores, most
           of them for cnn-bn.

Each network is trained as its recipe says, except for the number of epochs. Try `--epochs 5`,
`--seeds 0 1 2 3 4`, `--models cnn speed` and `--help`.
"""

from pathlib import Path

import tyro

import mnistjax
from mnistjax.cli import one_line_errors, print_comparison, use_compilation_cache


@one_line_errors
def main() -> None:
    """Parses the flags and compares the networks."""
    use_compilation_cache()  # A second run loads the compiled programs.
    tyro.cli(compare_models)


def compare_models(
    models: tuple[str, ...] = ("softmax", "mlp", "cnn", "cnn-bn"),
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: float = 2.0,
    data_dir: Path | None = None,
    workdir: Path = Path("runs/compare"),
    overwrite: bool = False,
) -> None:
    """Train networks over several seeds and compare them.

    Args:
        models: Names of recipes.
        seeds: Each network is trained once per seed.
        epochs: Passes over the training images; the recipes themselves make 10 to 20.
        data_dir: Folder of the data sets.
        workdir: Folder for the runs and the bar chart.
        overwrite: Replace runs that the folder already holds.
    """
    dataset = mnistjax.load_dataset(data_dir=data_dir)
    runs = []
    for model in models:
        for seed in seeds:
            config = mnistjax.get_recipe(model).replace(epochs=epochs, seed=seed)
            run = workdir / f"{model}-{seed}"
            fitted = mnistjax.fit(config, dataset, workdir=run, overwrite=overwrite)
            print(f"{run}  test accuracy {fitted.result['test_accuracy']:.2%}")
            runs.append(run)

    # The runs are on disk: `mnistjax compare runs/compare/*/` prints the same tables.
    comparison = mnistjax.compare_runs(runs, data_dir=data_dir)
    print_comparison(comparison)
    chart = workdir / "comparison.png"
    mnistjax.plots.comparison(comparison.rows).savefig(chart, dpi=160)
    print(f"\nbar chart in {chart}")


if __name__ == "__main__":
    main()
