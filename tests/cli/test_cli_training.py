"""`mnistjax train`: its flags are read as meant, and what cannot be used is one line."""

from __future__ import annotations

import logging

import pytest
from report_runs import few_corruptions, few_pictures

import mnistjax
from mnistjax.cli import main, parse_run_arguments

QUICK = ["--dataset", "digits", "--recipe", "softmax", "--steps", "5", "--no-report"]


def parse(*words):
    """Returns the settings that the flags give, with those of cnn as the default."""
    return parse_run_arguments(mnistjax.get_recipe("cnn"), words).config


def test_train_takes_the_settings_of_the_recipe_and_of_the_flags(tmp_path):
    main(["train", *QUICK, "--learning-rate=0.002", "--workdir", str(tmp_path)])
    config = mnistjax.TrainConfig.from_json((tmp_path / "config.json").read_text())
    recipe = mnistjax.get_recipe("softmax")
    assert config == recipe.replace(dataset="digits", steps=5, learning_rate=0.002)
    assert mnistjax.runs.read_result(tmp_path)["steps"] == 5


@pytest.mark.parametrize("name", mnistjax.runs.RECIPES)
def test_without_other_flags_a_recipe_is_taken_whole(name):
    assert parse("--recipe", name) == parse(f"--recipe={name}") == mnistjax.get_recipe(name)


def test_of_a_flag_that_is_given_twice_the_last_one_counts():
    words = ["--recipe", "mlp", "--recipe", "softmax", "--seed", "1", "--seed=2"]
    assert parse(*words) == mnistjax.get_recipe("softmax").replace(seed=2)


def test_a_flag_counts_even_where_it_gives_the_default_of_another_recipe():
    """The batch size of cnn, which is the default of the command, is not that of mlp."""
    assert mnistjax.get_recipe("mlp").batch_size != 32
    for words in (["--recipe", "mlp", "--batch-size=32"], ["--batch-size=32", "--recipe", "mlp"]):
        assert parse(*words) == mnistjax.get_recipe("mlp").replace(batch_size=32)


def test_a_setting_of_a_recipe_can_be_switched_off():
    assert parse("--recipe", "speed", "--b1", "None").b1 is None


@pytest.mark.parametrize("words", [[], ["--workdir", "runs/mine"], ["--recipe", "mlp"]])
def test_a_program_has_default_settings_of_its_own(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    default = mnistjax.TrainConfig(epochs=3.0)
    asked = parse_run_arguments(default, words)
    assert asked.config == (mnistjax.get_recipe("mlp") if "mlp" in words else default)
    assert str(asked.workdir.parent) == "runs"
    assert (asked.workdir.name == "mine") == ("--workdir" in words)


def test_steps_take_the_place_of_the_default_epochs():
    config = parse_run_arguments(mnistjax.TrainConfig(epochs=3.0), ["--steps=7"]).config
    assert (config.steps, config.epochs) == (7, None)


def test_a_registered_data_set_comes_before_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mnist", "mine"):
        (tmp_path / name).mkdir()
    for given, expected in (
        ("mnist", "mnist"),
        ("digits", "digits"),
        ("mine", str(tmp_path / "mine")),  # The run may be evaluated from another folder.
        ("./mnist", str(tmp_path / "mnist")),
        ("nowhere", "nowhere"),
    ):
        assert parse("--dataset", given).dataset == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "cmn"], "unknown recipe 'cmn': did you mean 'cnn'?"),
        (["--recipe=nope"], "unknown recipe 'nope': known are accuracy, cnn, "),
        (["--model", "mpl"], "unknown model 'mpl': did you mean 'mlp'?"),
        (["--optimizer", "adm"], "unknown optimizer 'adm': did you mean 'adam'?"),
        (["--schedule", "cosin"], "unknown schedule 'cosin': did you mean 'cosine'?"),
        (["--dataset", "mnits"], "unknown dataset 'mnits': did you mean 'mnist'?"),
        (["--epochs", "2", "--steps", "3"], "give epochs (2.0) or steps (3), not both"),
        (["--epochs", "-1"], "epochs must be positive, at most 1,000,000, found -1.0"),
        (["--epochs", "nan"], "epochs must be positive, at most 1,000,000, found nan"),
        (["--steps", "0"], "steps must be from 1 to 2^31 - 1, found 0"),
        (["--warmup", "1"], "warmup must be in [0, 1), found 1.0"),
        (["--learning-rate", "0"], "learning_rate must be positive, at most 3e38, found 0.0"),
        (["--batch-size", "0"], "batch_size must be from 1 to 1,000,000,000, found 0"),
        ([*QUICK, "--batch-size", "2000"], "at most the number of images, 1437, found 2000"),
        (["--patience", "1", "--validation-fraction", "0"], "patience needs validation images"),
        (["--optimizer", "adam", "--momentum", "0.5"], "'adam' takes no setting 'momentum'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(words, message, refusal, tmp_path):
    workdir = tmp_path / "run"
    assert message in refusal("train", *words, "--workdir", workdir)
    assert not workdir.exists()


def test_a_flag_of_the_wrong_type_is_refused_without_a_traceback(ending):
    status, out, err = ending("train", "--batch-size", "many")
    assert status == 2
    assert "--batch-size" in err
    assert "Traceback" not in out + err


def test_a_directory_that_holds_a_run_is_one_line_and_can_be_overwritten(tmp_path, refusal):
    words = ["train", *QUICK, "--workdir", str(tmp_path)]
    (tmp_path / "result.json").write_text("{}")
    assert f"found a finished run in {tmp_path} (result.json)" in refusal(*words)
    main([*words, "--overwrite"])
    assert mnistjax.runs.read_result(tmp_path)["steps"] == 5


def test_a_loss_that_is_not_finite_is_one_line(tmp_path, refusal):
    words = [*QUICK, "--learning-rate", "1e38", "--workdir", tmp_path]
    assert "a learning_rate below 1e+38 or clip_norm may help" in refusal("train", *words)
    assert not (tmp_path / "result.json").exists()


def test_a_named_data_set_that_cannot_be_had_is_one_line(tmp_path, refusal, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    words = ["train", "--dataset", "kmnist", "--data-dir", tmp_path / "data"]
    assert "data set 'kmnist' not found" in refusal(*words, "--workdir", tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_watcher_that_fails_is_one_line_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    def fail(self, row):
        raise OSError("no space\nleft on device")

    monkeypatch.setattr(mnistjax.ProgressBar, "on_epoch", fail)
    main(["train", *QUICK, "--workdir", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ProgressBar.on_epoch failed")
    assert line.endswith("no space left on device")
    assert mnistjax.runs.read_result(tmp_path)["steps"] == 5
    assert not logging.getLogger("mnistjax").handlers


def test_train_prints_to_stdout_where_the_results_are(tmp_path, capsys, monkeypatch):
    few_corruptions(monkeypatch)
    few_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = [word for word in QUICK if word != "--no-report"]
    main(["train", *words])
    said = capsys.readouterr()
    (workdir,) = (tmp_path / "runs").iterdir()
    assert workdir.name.startswith("softmax-")
    assert said.out.splitlines()[-2:] == [
        f"results in runs/{workdir.name}",
        f"writing the report runs/{workdir.name}/report.html",
    ]
    assert (workdir / "report.html").is_file()
    assert not said.err
