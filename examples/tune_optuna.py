"""Tunes a network with Optuna: ask for settings, train, tell the validation accuracy.

Command:   pip install -q -e ".[optuna]" && python examples/tune_optuna.py
Expected:  a line per trial, of which about half are pruned, and adam at 0.0031 as the best, with a
           test accuracy of 97.35 %, after half a minute on two CPU cores.

Trials that are worse than the median after an epoch are pruned. A learning rate is an argument of
the compiled program, so that only the two optimizers compile. Nothing is chosen by the test images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import tyro

import mnistjax
from mnistjax.cli import one_line_errors, use_compilation_cache


class Prune(mnistjax.Callback):
    """Ends trials that Optuna does not expect to be good."""

    def __init__(self, trial: optuna.Trial) -> None:
        """Watches the run of a trial."""
        self.trial = trial

    def on_epoch(self, row: Mapping[str, Any]) -> bool:
        """Reports the validation accuracy of an epoch, and returns whether to stop."""
        self.trial.report(row["validation_accuracy"], row["step"])
        return self.trial.should_prune()


@one_line_errors
def main() -> None:
    """Parses the flags and tunes the network."""
    use_compilation_cache()  # A second run loads the compiled programs.
    tyro.cli(tune)


def tune(
    recipe: str = "mlp", trials: int = 20, epochs: int = 4, data_dir: Path | None = None
) -> None:
    """Tune the optimizer and the learning rate of a recipe.

    Args:
        recipe: Recipe with the other settings.
        trials: Number of trials.
        epochs: Passes over the training images.
        data_dir: Folder of the data sets.
    """
    dataset = mnistjax.load_dataset(data_dir=data_dir)
    config = mnistjax.get_recipe(recipe).replace(epochs=epochs, validation_fraction=0.1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    best: mnistjax.TrainedModel | None = None
    for _ in range(trials):
        trial = study.ask()
        settings = {
            "optimizer": trial.suggest_categorical("optimizer", ["adam", "momentum"]),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        }
        try:
            fitted = mnistjax.fit(config.replace(**settings), dataset, callbacks=[Prune(trial)])
        except mnistjax.errors.NonFiniteLossError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            print(f"trial {trial.number}: {settings} failed: {error}")
            continue
        accuracy = fitted.result["validation_accuracy"]
        pruned = fitted.result["steps"] < fitted.result["steps_per_epoch"] * epochs
        state = optuna.trial.TrialState.PRUNED if pruned else None
        study.tell(trial, None if pruned else accuracy, state)
        print(f"trial {trial.number}: {settings} {accuracy:.2%} {'pruned' if pruned else ''}")
        if not pruned and accuracy == study.best_value:
            best = fitted.trained
    if best is None:
        raise mnistjax.errors.RunError("expected a network, found that no trial was trained")
    test = mnistjax.evaluate(best, dataset.test).summary()["accuracy"]
    print(f"best: {study.best_params}, test accuracy {test:.2%}")


if __name__ == "__main__":
    main()
