"""Population-based training: who takes over from whom, and that a killed search goes on."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import CONFIG, dataset

from mnistjax import fit, fit_population, load_run
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs import PBT, callbacks, load_population, pbt, repeat, trainer
from mnistjax.signals import Interrupted

EPOCHS = 4
CHANGING = CONFIG.replace(epochs=EPOCHS, optimizer="momentum", momentum=0.9)
RATES = [1e-5, 1e-4, 0.01, 0.1]


def search(tmp_path, **options):
    given = {"search": PBT(), "learning_rate": RATES, "seeds": range(4), "combine": "zip"}
    return fit_population(CHANGING, dataset(), workdir=tmp_path, **{**given, **options})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pbt") / "sweep"


@pytest.fixture(scope="module")
def found(directory):
    return search(directory)


def timeless(population):
    return [
        {name: value for name, value in row.items() if name != "train_seconds"}
        for row in population.rows
    ]


@given(
    accuracies=st.lists(st.none() | st.floats(0, 1), min_size=2, max_size=40),
    share=st.floats(0.01, 0.5),
)
def test_the_worst_go_on_from_the_best(accuracies, share):
    numbers = [{"learning_rate": 0.1 * (1 + member)} for member in range(len(accuracies))]
    moves = PBT(share=share).moves(accuracies, numbers, 0)
    replaced = [move["member"] for move in moves]
    sources = {move["source"] for move in moves}
    assert len(set(replaced)) == len(replaced)
    assert not sources & set(replaced)
    sound = [found for found in accuracies if found is not None]
    if sound:
        # All that failed are replaced, and the worst of the others if there is room.
        assert {m for m, found in enumerate(accuracies) if found is None} <= set(replaced)
    count = math.ceil(share * len(accuracies))
    for source in sources:
        assert sum(found > accuracies[source] for found in sound) < count
    for move in moves:
        rate = numbers[move["source"]]["learning_rate"]
        assert move["settings"]["learning_rate"] in (
            pytest.approx(0.8 * rate),
            pytest.approx(1.25 * rate),
        )


def test_each_number_has_draws_of_its_own():
    numbers = [{"learning_rate": 1.0, "b1": 0.9, "rotate": 170.0}] * 4
    moves = [PBT(seed=seed).moves([0.9, 0.8, 0.7, 0.1], numbers, 0)[0] for seed in range(60)]
    rates = {move["settings"]["learning_rate"] for move in moves}
    decays = {round(1 - move["settings"]["b1"], 6) for move in moves}
    pairs = {tuple(move["settings"].values()) for move in moves}
    assert rates == {0.8, 1.25}
    assert decays == {0.08, 0.125}  # The distance from 1 changes.
    assert {move["settings"]["rotate"] for move in moves} == {136.0, 180}  # Within its bounds.
    assert len(pairs) == 8


def test_factors_may_be_numbers_of_numpy():
    assert PBT(factors=np.array([0.5, 2.0])) == PBT(factors=(0.5, 2.0))


def test_a_member_that_took_over_has_the_history_of_the_other(found, directory):
    rounds = json.loads((directory / "search.json").read_text())["rounds"]
    assert len(rounds) == EPOCHS - 1
    (move,) = rounds[-1]  # A quarter of four.
    one, source = found.member(move["member"]), found.member(move["source"])
    *same, last = source.history[: EPOCHS - 1]
    expected = (*same, {**last, "taken_over_from": move["source"]})
    assert one.history[: EPOCHS - 1] == expected
    network = load_run(directory / f"members/{move['member']:03d}")
    with pytest.raises(RunError, match=f"took over from member {move['source']} after epoch 3"):
        repeat(network, dataset())
    assert one.history[-1] != source.history[-1]
    assert one.config.learning_rate == move["settings"]["learning_rate"]
    assert found.rows[move["member"]]["learning_rate"] == one.config.learning_rate
    assert one.config.seed == move["member"]


def test_all_are_trained_to_the_end_and_tested(found):
    assert [row["epochs"] for row in found.rows] == [EPOCHS] * 4
    assert all(row["test_accuracy"] is not None for row in found.rows)
    assert found.best().result["validation_accuracy"] == max(
        row["validation_accuracy"] for row in found.rows
    )


def test_a_member_that_is_never_replaced_is_the_network_that_is_trained_alone(found, directory):
    rounds = json.loads((directory / "search.json").read_text())["rounds"]
    replaced = {move["member"] for moves in rounds for move in moves}
    for number in set(range(4)) - replaced:
        alone = fit(CHANGING.replace(learning_rate=RATES[number], seed=number), dataset()).trained
        for ours, theirs in zip(
            jax.tree.leaves(found.member(number).variables),
            jax.tree.leaves(alone.variables),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert len(replaced) < 4


def test_it_is_read_back_as_it_was(found, directory):
    assert load_population(directory).rows == found.rows


@pytest.mark.parametrize("stop", [1, 5, 9, 14])
def test_one_that_is_interrupted_goes_on_to_the_same_end(found, tmp_path, stop):
    class Stop(callbacks.Callback):
        left = stop

        def on_epoch(self, row):
            Stop.left -= 1
            if not Stop.left:
                raise Interrupted(15, "as the test asked")

    with pytest.raises(Interrupted):
        search(tmp_path / "s", callbacks=[Stop()])
    assert timeless(search(tmp_path / "s", resume=True)) == timeless(found)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_one_that_dies_while_members_take_over_goes_on_to_the_same_end(
    found, tmp_path, monkeypatch, fails_at
):
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == fails_at:
            raise Interrupted(15, "as the test asked")
        return take_over(*arguments)

    take_over = pbt._take_over
    with monkeypatch.context() as patched:
        patched.setattr(pbt, "_take_over", dies)
        with pytest.raises(Interrupted):
            search(tmp_path / "s")
    assert timeless(search(tmp_path / "s", resume=True)) == timeless(found)


def test_a_member_that_diverges_goes_on_from_another(tmp_path):
    config = CHANGING.replace(optimizer="sgd", momentum=None, epochs=3)
    rates = [0.1, 0.2, 1e30, 0.05]
    found = fit_population(config, dataset(), search=PBT(), learning_rate=rates)
    assert [row["error"] for row in found.rows] == [None] * 4
    assert found.rows[2]["learning_rate"] < 1


def test_where_all_diverge_all_are_reported():
    config = CHANGING.replace(optimizer="sgd", momentum=None, epochs=3)
    found = fit_population(config, dataset(), search=PBT(), learning_rate=[1e30, 2e30])
    assert all(row["error"] for row in found.rows)


@pytest.mark.parametrize(
    ("changes", "settings", "match"),
    [
        ({"validation_fraction": 0.0}, {"learning_rate": RATES}, "validation_fraction is 0"),
        ({"patience": 3}, {"learning_rate": RATES}, "found patience=3"),
        ({}, {"learning_rate": [0.1, 0.2], "patience": [None, 2]}, "found patience=2"),
        ({"epochs": 1}, {"learning_rate": RATES}, "more than 1 epochs, found 4 and 1"),
        ({}, {"learning_rate": [0.1]}, "at least two members .* found 1 and 4"),
        ({}, {"learning_rate": [0.1, 0.2], "model": ["mlp", "softmax"]}, "share a compiled"),
        ({}, {"seeds": range(3)}, "expected a number that varies"),
    ],
)
def test_what_cannot_be_exchanged_is_refused_before_training(monkeypatch, changes, settings, match):
    monkeypatch.setattr(trainer, "fit_part", pytest.fail)
    with pytest.raises(ConfigError, match=match):
        fit_population(CHANGING.replace(**changes), dataset(), search=PBT(), **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"interval": 0}, {"interval": 1.5}, {"seed": -1}, {"share": 0}, {"share": 0.6}),
        *({"factors": ()}, {"factors": (0.0, 1.2)}, {"factors": (math.inf,)}),
        *({"factors": ("a",)}, {"factors": 2}, {"share": "a"}),
    ],
)
def test_attributes_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        PBT(**wrong)


MOVE = {"member": 0, "source": 1, "settings": {"learning_rate": 0.1}}


@pytest.mark.parametrize(
    "content",
    [
        *([], {}, {"rounds": 3, "applied": True}, {"rounds": [[3]], "applied": True}),
        *(
            {"rounds": [[{**MOVE, **wrong}]], "applied": False}
            for wrong in (
                *({"member": 4}, {"source": -1}, {"member": "0"}, {"member": True}),
                *({"settings": 3}, {"settings": {}}, {"settings": {"model": "cnn"}}),
                {"settings": {"learning_rate": "0.1"}},
            )
        ),
    ],
)
def test_a_damaged_journal_is_one_line(directory, found, tmp_path, content):
    shutil.copytree(directory, tmp_path / "s")
    (tmp_path / "s/search.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"exchanges of a search in .*search.json"):
        search(tmp_path / "s", resume=True)


def test_another_search_is_not_taken_for_it(found, directory, tmp_path):
    for other in (None, PBT(interval=2), PBT(share=0.5)):
        with pytest.raises(RunError, match="to have the same search"):
            search(directory, search=other, resume=True)
    # What an overwritten search has noted is gone with it.
    shutil.copytree(directory, tmp_path / "s")
    search(tmp_path / "s", search=None, overwrite=True)
    assert not (tmp_path / "s/search.json").exists()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/search.json").write_text("{}")
    with pytest.raises(RunError, match="belongs to no population"):
        search(tmp_path / "new", resume=True)


def test_a_member_that_stops_early_ends_the_search(tmp_path):
    class Stop(callbacks.Callback):
        def on_epoch(self, row):
            return True

    with pytest.raises(RunError, match="found one that stopped"):
        search(tmp_path / "s", callbacks=[Stop()])


def test_members_that_take_over_keep_their_teacher(tmp_path):
    teacher = fit(CHANGING.replace(epochs=1), dataset()).trained
    taught = search(tmp_path / "s", teacher=teacher)
    assert json.loads((tmp_path / "s/search.json").read_text())["rounds"][0]
    digests = {member.trained.result["teacher_sha256"] for member in taught.members}
    assert len(digests) == 1
    with pytest.raises(RunError, match="teacher"):
        search(tmp_path / "s", resume=True)
