"""`mnistjax sweep` trains every combination, and says in one line what cannot be one."""

import json
import re

import pytest

import mnistjax
from mnistjax.cli import main

QUICK = ["--dataset", "digits", "--model", "softmax", "--steps", "5"]


def test_every_combination_is_trained_and_summarized(tmp_path, capsys):
    words = ["--learning-rate", "0.01", "0.1", "--optimizer", "sgd", "adam", "--seeds", "2"]
    main(["sweep", *QUICK, *words, "--seed", "7", "--ensemble", "--workdir", str(tmp_path / "s")])
    out = capsys.readouterr().out
    found = mnistjax.runs.load_population(tmp_path / "s")
    assert len(found) == 8
    for row in found.rows:
        assert row["seed"] in (7, 8)
        line = f"optimizer={row['optimizer']} learning_rate={row['learning_rate']} "
        assert f"{line}seed={row['seed']}  " in out
    assert out.count(" ± ") == 1 + 8
    accuracy = mnistjax.evaluate(found.ensemble(), mnistjax.load_dataset("digits").test).summary()
    assert f"soft vote of 8 networks: {accuracy['accuracy']:.2%} of the test images" in out
    assert "8 of 8 trained in " in out


def test_one_value_of_each_flag_is_one_network(tmp_path, capsys):
    main(["sweep", *QUICK, "--learning-rate", "0.1", "--workdir", str(tmp_path / "s")])
    assert "1 of 1 trained in " in capsys.readouterr().out
    (row,) = mnistjax.runs.load_population(tmp_path / "s").rows
    config = mnistjax.load_run(tmp_path / "s/members/000").config
    assert config.learning_rate == 0.1
    assert row["test_accuracy"] is not None


def test_lists_may_run_in_parallel_and_a_member_may_fail(tmp_path, capsys):
    words = ["--learning-rate", "0.1", "1e30", "--batch-size", "32", "64", "--combine", "zip"]
    long = ["--dataset", "digits", "--model", "mlp", "--steps", "60", "--optimizer", "sgd"]
    main(["sweep", *long, *words, "--workdir", str(tmp_path / "s")])
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "s/population.json").read_text())
    assert [(row["batch_size"], row["learning_rate"]) for row in content["rows"]] == [
        (32, 0.1),
        (64, 1e30),
    ]
    assert "failed: the training loss in step" in out


def test_a_sweep_of_which_nothing_is_left_fails(tmp_path, refusal):
    words = ["--dataset", "digits", "--model", "mlp", "--steps", "60", "--optimizer", "sgd"]
    line = refusal("sweep", *words, "--learning-rate", "1e30", "--workdir", tmp_path / "s")
    assert "training of all failed" in line


def test_settings_may_be_drawn_and_networks_trained_side_by_side(tmp_path, capsys):
    draws = ["learning-rate=log-uniform:1e-3:1e-1", "optimizer=choice:adam:sgd"]
    words = ["--draw", *draws, "--draws", "3", "--draw-seed", "1", "--seeds", "2"]
    main(["sweep", *QUICK, *words, "--together", "6", "--workdir", str(tmp_path / "s")])
    out = capsys.readouterr().out
    assert "6 of 6 trained in " in out
    assert not re.search(r"\d\.\d{10}", out)
    rows = mnistjax.runs.load_population(tmp_path / "s").rows
    settings = {(row["learning_rate"], row["optimizer"]) for row in rows}
    assert len(settings) == 3
    assert all(1e-3 < rate < 1e-1 and name in ("adam", "sgd") for rate, name in settings)


def test_settings_may_compete(tmp_path, capsys):
    words = ["sweep", "--dataset", "digits", "--model", "softmax", "--epochs", "3", "--halving"]
    rates = ["1e-4", "1e-2", "3e-2"]
    main([*words, "--learning-rate", *rates, "--seeds", "2", "--workdir", str(tmp_path / "s")])
    out = capsys.readouterr().out
    assert "2 of 6 trained, 4 ended early, in " in out
    assert "eliminated" in out
    found = mnistjax.runs.load_population(tmp_path / "s")
    assert sorted(row["epochs"] for row in found.rows) == [1] * 4 + [3] * 2


def test_networks_may_go_on_from_better_ones(tmp_path, capsys):
    words = ["sweep", "--dataset", "digits", "--model", "softmax", "--epochs", "3", "--pbt"]
    rates = ["1e-6", "1e-2", "3e-2", "2e-2"]
    main([*words, "--learning-rate", *rates, "--workdir", str(tmp_path / "s")])
    assert "4 of 4 trained in " in capsys.readouterr().out
    rows = mnistjax.runs.load_population(tmp_path / "s").rows
    assert rows[0]["learning_rate"] > 1e-3  # The worst one took over from a better one.


def test_a_sweep_goes_on_and_is_not_replaced_unasked(tmp_path, capsys, refusal):
    words = ["sweep", *QUICK, "--learning-rate", "0.1", "0.2", "--workdir", str(tmp_path / "s")]
    main(words)
    first = capsys.readouterr().out
    assert "already holds a population" in refusal(*words)
    main([*words, "--resume"])
    table = first[first.index("mean ±") : first.index(" trained in")]
    assert table[:-2] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "0.1", "-1"], "learning_rate must be positive"),
        (["--seeds", "0"], "--seeds must be at least 1, found 0"),
        (["--resume"], "--resume needs the --workdir"),
        (["--learning-rate", "--seeds", "2"], "--learning-rate needs at least one value"),
        (["--batch-size", "4", "5", "--shift", "0", "1", "2", "--combine", "zip"], "to zip, found"),
        (["--batch-size", "32", "10000"], "batch"),
        (["--halving", "--pbt"], "--halving or --pbt, found both"),
        (["--halving", "--learning-rate", "0.1", "0.2"], "3 epochs for successive halving by 3"),
        (["--pbt", "--learning-rate", "0.1", "0.2"], "more than 1 epochs, found 2 and 1"),
        (["--draw", "momentum=normal:0:1", "--draws", "2"], "found --draw momentum=normal:0:1"),
        (["--draw", "momentum=uniform:0.5", "--draws", "2"], "found --draw momentum=uniform:0.5"),
        (["--draw", "b1=uniform:0.9:0.5", "--draws", "2"], "Uniform of a low below high"),
        (["--draw", "b1=uniform:0.5:0.9"], "expected draws, their number"),
        (["--draw", "speed=uniform:0:1", "--draws", "2"], "unknown setting 'speed'"),
        (["--learning-rate", "1", "2", "--draw", "learning-rate=choice:1:2"], "found two"),
        (["--together", "0"], "--together must be at least 1, found 0"),
        (["--together", "2", "--seeds", "2", "--pbt"], "together=1 in a search, found 2"),
    ],
)
def test_what_cannot_be_a_sweep_is_one_line(words, message, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refusal("sweep", *QUICK, *words)
    assert not list(tmp_path.iterdir())


def test_a_sweep_writes_its_report_and_report_writes_it_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", *QUICK, "--learning-rate", "0.1", "0.2", "--workdir", "s"]
    main(words)
    assert capsys.readouterr().out.endswith("\nreport in s/report.html\n")
    page = (tmp_path / "s/report.html").read_bytes()
    assert b"2 softmax networks on digits" in page
    main(["report", "s", "--output", "here.html"])
    assert capsys.readouterr().out == "report in here.html\n"
    assert (tmp_path / "here.html").read_bytes() == page
    main([*words, "--overwrite", "--no-report"])
    assert "report" not in capsys.readouterr().out
    assert not (tmp_path / "s/report.html").exists()
    main(["report", "s"])
    assert (tmp_path / "s/report.html").exists()


def test_a_report_of_a_sweep_that_fails_is_a_warning_and_costs_nothing(
    tmp_path, capsys, monkeypatch
):
    def fail(*args, **options):
        raise ZeroDivisionError("of its own\nmaking")

    monkeypatch.setattr("mnistjax.report.write_sweep_report", fail)
    main(["sweep", *QUICK, "--seeds", "2", "--workdir", str(tmp_path / "s")])
    said = capsys.readouterr()
    assert said.err == (
        "warning: the report failed, and the networks are kept: of its own making\n"
    )
    assert "report in" not in said.out
    assert len(mnistjax.runs.load_population(tmp_path / "s")) == 2


def test_an_unfinished_sweep_has_no_report(tmp_path, refusal):
    main(["sweep", *QUICK, "--seeds", "2", "--workdir", str(tmp_path), "--no-report"])
    content = json.loads((tmp_path / "population.json").read_text()) | {"rows": None}
    (tmp_path / "population.json").write_text(json.dumps(content))
    assert "expected a finished population" in refusal("report", tmp_path)
