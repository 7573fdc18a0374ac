"""Runs with a teacher: what they learn, what they share, and what they are resumed with."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset, squares

import mnistjax
from mnistjax import CheckpointPolicy, Dataset, Split, fit, fit_population
from mnistjax.errors import ConfigError, RunError, RunNotFoundError
from mnistjax.runs import ensemble, load_population, load_teacher, read_result, repeat
from mnistjax.runs.compiled import program_calls
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.fingerprints import teacher_fingerprint
from mnistjax.runs.plan import make_plan
from mnistjax.runs.result import CLOCKS

STUDENT = CONFIG.replace(model="softmax", epochs=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("teachers") / "sweep"


@pytest.fixture(scope="module")
def members(directory):
    """Three networks of each of two kinds."""
    options = {"model": ["mlp", "softmax"], "seeds": range(3), "workdir": directory}
    found = fit_population(CONFIG.replace(epochs=1), dataset(), **options)
    return [found.member(number) for number in range(6)]


@pytest.fixture(scope="module")
def teacher(members):
    return ensemble([members[0], members[3]])


@pytest.fixture(scope="module")
def taught(teacher):
    return fit(STUDENT, dataset(), teacher=teacher)


def weights(fitted):
    return jax.tree.leaves(fitted.trained.variables)


def assert_same_bits(one, other):
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_close(one, other):
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def differ(one, other):
    pairs = zip(weights(one), weights(other), strict=True)
    return any(np.any(np.not_equal(*pair)) for pair in pairs)


def test_a_student_learns_from_its_teacher_where_the_labels_say_nothing(members):
    train = dataset().train
    labels = np.random.default_rng(0).permutation(train.labels)
    noise = Dataset(Split(train.images, labels), dataset().test, dataset().info)
    config = CONFIG.replace(epochs=8, validation_fraction=0.0, distill_weight=1.0)
    good = fit(CONFIG, dataset()).trained
    assert fit(config, noise, teacher=good).result["test_accuracy"] >= 0.95
    assert fit(config, noise).result["test_accuracy"] < 0.7


def test_a_teacher_without_weight_changes_nothing_but_rounding(taught, teacher):
    ignored = fit(STUDENT.replace(distill_weight=0.0), dataset(), teacher=teacher)
    alone = fit(STUDENT, dataset())
    assert_close(ignored, alone)
    assert differ(taught, alone)


def test_the_settings_of_distillation_have_an_effect_with_a_teacher_alone(taught, teacher):
    for settings in ({"distill_weight": 0.2}, {"temperature": 7.0}):
        changed = STUDENT.replace(**settings)
        assert differ(taught, fit(changed, dataset(), teacher=teacher))
        assert_same_bits(fit(changed, dataset()), fit(STUDENT, dataset()))


def test_the_result_and_the_callbacks_know_the_teacher(tmp_path, teacher):
    recorder = Recorder()
    options = {"workdir": tmp_path, "teacher": teacher, "callbacks": [recorder]}
    fit(STUDENT.replace(steps=1), dataset(), **options)
    result, (_, _, told) = read_result(tmp_path), recorder.calls[0]
    for facts in (result, told):
        assert facts["teacher"] == "ensemble of 2"
        assert facts["teacher_sha256"] == teacher_fingerprint(teacher)
    assert "teacher" not in fit(STUDENT.replace(steps=1), dataset()).result


def test_every_number_of_a_teacher_is_in_its_fingerprint(teacher):
    leaves, structure = jax.tree.flatten(teacher.variables)
    found = {teacher_fingerprint(teacher)}
    for index, leaf in enumerate(leaves):
        changed = [*leaves[:index], leaf.at[(-1,) * leaf.ndim].add(1e-3), *leaves[index + 1 :]]
        variables = jax.tree.unflatten(structure, changed)
        found.add(teacher_fingerprint(dataclasses.replace(teacher, variables=variables)))
    assert len(found) == 1 + len(leaves)
    assert teacher_fingerprint(None) is None


def compiled_messages(caplog):
    return [it.getMessage() for it in caplog.records if "Compiling" in it.getMessage()]


def test_another_teacher_of_the_same_structure_compiles_nothing(taught, members, caplog):
    with jax.log_compiles():
        other = fit(
            STUDENT.replace(temperature=3.0, distill_weight=0.5, seed=1),
            dataset(),
            teacher=ensemble([members[1], members[4]]),
        )
    assert not compiled_messages(caplog)
    assert differ(taught, other)


def test_teachers_of_another_structure_have_programs_of_their_own(members):
    mlp, softmax = members[:3], members[3:]
    config = STUDENT.replace(steps=3)
    # The same kinds of networks, and the same number of networks in all.
    votes = [ensemble([*mlp[:2], softmax[0]]), ensemble([mlp[0], *softmax[:2]])]
    found = [fit(config, dataset(), teacher=vote) for vote in (*votes, mlp[0], None)]
    for number, one in enumerate(found):
        assert not [other for other in found[number + 1 :] if not differ(one, other)]


def text_of(program, *arguments):
    return program.lower(*arguments).as_text()


def longest_constant(text):
    return max(map(len, re.findall(r"dense<[^>]*>", text)), default=0)


def test_the_weights_of_a_teacher_are_arguments_of_the_program(members):
    vote = ensemble(members[:3])
    plan = make_plan(STUDENT, dataset(), teacher=vote)
    program, arguments = program_calls(plan)["train"]
    shapes = {leaf.shape for leaf in jax.tree.leaves(arguments[1])}
    assert shapes == {leaf.shape for leaf in jax.tree.leaves(vote.variables)}
    assert longest_constant(text_of(program, *arguments)) < 1000
    # A function that closes over them would have them in its text.
    closed = jax.jit(lambda images: vote.model.apply(vote.variables, images)[0])
    images = jax.ShapeDtypeStruct((1, 12, 12, 1), np.float32)
    assert longest_constant(text_of(closed, images)) > 100_000


@pytest.mark.parametrize("images", ["replicated", "sharded", "streamed"])
def test_on_many_devices_it_is_the_run_on_one(taught, teacher, images):
    assert_close(fit(STUDENT, dataset(), teacher=teacher, devices=5, images=images), taught)


def test_streamed_images_give_the_bits_of_resident_ones(taught, teacher):
    assert_same_bits(fit(STUDENT, dataset(), teacher=teacher, images="streamed"), taught)


def test_a_network_of_ones_own_can_teach():
    def apply(variables, images, **_):
        return images.reshape(len(images), -1) @ variables["params"]["weights"], {}

    variables = {"params": {"weights": np.ones((144, 4))}, "batch_stats": {}}
    model = mnistjax.Model(lambda key, images: variables, apply, name="my own")
    own = mnistjax.TrainedModel(model, variables, dataset().info)
    config = STUDENT.replace(steps=3, dtype="bfloat16", shift=1, microbatch_size=16)
    assert fit(config, dataset(), teacher=own).result["teacher"] == "my own"


def test_a_teacher_of_another_kind_is_refused_before_anything(members, tmp_path, caplog):
    info = mnistjax.DatasetInfo("other", 10, image_shape=(12, 12, 1))
    larger = mnistjax.DatasetInfo("larger", 4, image_shape=(28, 28, 1))
    for wrong, message in ((info, "num_classes 10"), (larger, "image_shape .28, 28, 1")):
        other = dataclasses.replace(members[0], info=wrong)
        run = {"workdir": tmp_path / "run", "teacher": other}
        for train in (fit, fit_population):
            expected = f"the teacher does not fit the data set: .*{message}"
            with jax.log_compiles(), pytest.raises(ConfigError, match=expected) as caught:
                train(CONFIG, dataset(), **run)
            assert "\n" not in str(caught.value)
    assert not compiled_messages(caplog)
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """Ends a run as a signal that nothing handles would."""


class Kill(Recorder):
    def on_steps(self, step):
        if step >= 7:
            raise Killed


def without_clocks(row):
    return {key: value for key, value in row.items() if key not in CLOCKS}


def interrupted(workdir, teacher):
    with pytest.raises(Killed):
        fit(
            STUDENT,
            dataset(),
            workdir=workdir,
            teacher=teacher,
            checkpoints=CheckpointPolicy(every="3steps"),
            callbacks=[Kill()],
        )
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_run_is_resumed_with_its_teacher_to_the_same_bits(tmp_path, taught, teacher, members):
    before = interrupted(tmp_path, teacher)
    mine, other = (teacher_fingerprint(it)[:8] for it in (teacher, members[0]))
    for wrong, found in ((None, "no teacher"), (members[0], f"the teacher of SHA-256 {other}")):
        expected = rf"expected the teacher of SHA-256 {mine}\w+, as .*step-.* had, found {found}"
        with pytest.raises(RunError, match=expected) as caught:
            fit(STUDENT, dataset(), workdir=tmp_path, teacher=wrong, resume=True)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in before} == before
    resumed = fit(STUDENT, dataset(), workdir=tmp_path, teacher=teacher, resume=True)
    assert_same_bits(resumed, taught)
    assert [*map(without_clocks, resumed.history)] == [*map(without_clocks, taught.history)]


def test_a_run_without_a_teacher_is_not_resumed_with_one(tmp_path, teacher):
    interrupted(tmp_path, None)
    assert find_checkpoints(tmp_path)
    with pytest.raises(RunError, match=r"expected no teacher, as .* had, found the teacher of"):
        fit(STUDENT, dataset(), workdir=tmp_path, teacher=teacher, resume=True)


def test_a_run_is_repeated_with_its_teacher_alone(taught, teacher, members):
    assert repeat(taught.trained, dataset(), teacher=teacher) is None
    for wrong in (None, members[0]):
        with pytest.raises(RunError, match=r"expected the teacher of .* the run to repeat had"):
            repeat(taught.trained, dataset(), teacher=wrong)
    with pytest.raises(RunError, match="expected no teacher"):
        repeat(members[0], dataset(), teacher=teacher)


def test_a_population_has_one_teacher(tmp_path, teacher, taught, members):
    options = {"temperature": [2.0, 5.0], "workdir": tmp_path}
    found = fit_population(STUDENT, dataset(), **options, teacher=teacher)
    assert [row["group"] for row in found.rows] == [0, 0]
    assert_same_bits(dataclasses.replace(taught, trained=found.member(0)), taught)
    for wrong in (None, members[0]):
        with pytest.raises(RunError, match="have the same teacher, found others"):
            fit_population(STUDENT, dataset(), **options, teacher=wrong, resume=True)
    again = fit_population(STUDENT, dataset(), **options, teacher=teacher, resume=True)
    assert again.rows == found.rows == load_population(tmp_path).rows
    # A member that another population has left.
    (tmp_path / "population.json").unlink()
    with pytest.raises(RunError, match="found no teacher"):
        fit_population(STUDENT, dataset(), **options, resume=True)


def test_a_population_of_an_older_version_goes_on(tmp_path):
    fit_population(STUDENT, dataset(), seeds=[0], workdir=tmp_path)
    file = tmp_path / "population.json"
    lines = file.read_text().splitlines(keepends=True)
    new = ('"distill_weight"', '"temperature"')
    file.write_text("".join(line for line in lines if not line.strip().startswith(new)))
    assert len(file.read_text().splitlines()) == len(lines) - 2
    fit_population(STUDENT, dataset(), seeds=[0], workdir=tmp_path, resume=True)


def test_a_teacher_is_read_from_a_run_or_a_population(directory, members):
    alone = load_teacher(directory / "members" / "001")
    assert teacher_fingerprint(alone) == teacher_fingerprint(members[1])
    together = load_teacher(directory)
    assert together.model.name == "ensemble of 6"
    assert teacher_fingerprint(together) == teacher_fingerprint(ensemble(members))
    with pytest.raises(RunNotFoundError, match="found no file"):
        load_teacher(directory / "nothing")
    with pytest.raises(ConfigError, match="found an empty one"):
        load_teacher("")


def test_the_teacher_need_not_know_the_data_set(members):
    """Only its kind: the images to learn from may be others than its own."""
    other = Dataset(squares(150, 7), squares(40, 8), dataset().info, "drawn by a test")
    assert fit(STUDENT, other, teacher=members[0]).result["test_accuracy"] > 0.5
