"""The configuration: every bound, every error, and the way through JSON and back."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistjax import TrainConfig, get_recipe
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import MODELS
from mnistjax.runs import RECIPES
from mnistjax.training import OPTIMIZERS, SCHEDULES

BELOW_ONE = "in [0, 1)"
PIXELS = "from 0 to 28 pixels"
# Setting, what its error says, values that are just allowed, values that are just not.
BOUNDS = [
    ("epochs", "positive, at most 1,000,000", [1e-3, 1e6], [0, -1, 1e6 + 1]),
    ("steps", "from 1 to 2^31 - 1", [1, 2**31 - 1], [0, -1, 2**31]),
    ("batch_size", "from 1 to 1,000,000,000", [1, 10**9], [0, -1, 10**9 + 1]),
    ("microbatch_size", "from 1 to 1,000,000,000", [1, 10**9], [0, -1, 10**9 + 1]),
    ("seed", "from 0 to 2^32 - 1", [0, 2**32 - 1], [-1, 2**32]),
    ("learning_rate", "positive, at most 3e38", [1e-9, 1e9], [0, -1e-3, 1e39]),
    ("warmup", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("momentum", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("b1", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("b2", BELOW_ONE, [0, 0.9999], [-0.1, 1]),
    ("weight_decay", "from 0 to 3e38", [0, 10.0], [-1e-4, 1e39]),
    ("clip_norm", "positive, at most 3e38", [1e-3, 10], [0, -1, 1e39]),
    ("label_smoothing", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("ema_decay", BELOW_ONE, [0, 0.9999], [-0.1, 1]),
    ("distill_weight", "from 0 to 1", [0, 1], [-0.1, 1.1]),
    ("temperature", "from 0.01 to 1,000", [0.01, 1000], [0, -1, 0.009, 1001]),
    ("shift", "from 0 to 27 pixels", [0, 27], [-1, 28]),
    ("rotate", "from 0 to 180 degrees", [0, 180], [-1, 181]),
    ("scale", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("cutout", PIXELS, [0, 28], [-1, 29]),
    ("elastic", PIXELS, [0, 28], [-0.1, 28.1]),
    ("validation_fraction", BELOW_ONE, [0, 0.999], [-0.1, 1]),
    ("validation_seed", "from 0 to 2^32 - 1", [0, 2**32 - 1], [-1, 2**32]),
    ("patience", "from 1 to 1,000,000,000", [1, 10**9], [0, 10**9 + 1]),
]
NUMBERS = [name for name, *_ in BOUNDS]
INTEGERS = ["steps", "batch_size", "seed", "shift", "cutout", "validation_seed", "patience"]
# The optimizer that takes a setting, where it is not the default's.
NEEDS = {"momentum": {"optimizer": "momentum"}}


def test_the_table_of_bounds_has_every_number():
    words = {"recipe", "dataset", "model", "dtype", "optimizer", "schedule", "on_nan"}
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields == words | {"deterministic"} | set(NUMBERS)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, _, allowed, _ in BOUNDS for value in allowed]
)
def test_a_value_within_its_bounds_is_taken(name, value):
    assert getattr(TrainConfig(**{name: value}, **NEEDS.get(name, {})), name) == value


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [(name, words, value) for name, words, _, refused in BOUNDS for value in refused],
)
def test_a_value_out_of_its_bounds_is_refused(name, words, value):
    with pytest.raises(ConfigError, match=re.escape(f"{name} must be {words}, found {value}")):
        TrainConfig(**{name: value}, **NEEDS.get(name, {}))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), "3", True, [1], 10**400]
)
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_finite_number_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be .*, found "):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", INTEGERS)
def test_a_whole_number_is_needed_where_it_counts(name):
    for value in (1.5, 2.0):
        with pytest.raises(ConfigError, match=f"^{name} must be .*, found {value}"):
            TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["batch_size", "learning_rate", "seed", "shift"])
def test_none_is_no_number_where_there_is_a_default(name):
    with pytest.raises(ConfigError, match=f"^{name} must be .*, found None"):
        TrainConfig(**{name: None})


@pytest.mark.parametrize(
    ("kind", "near"), [("model", "cnn-b"), ("optimizer", "adams"), ("schedule", "cosines")]
)
def test_an_unknown_name_comes_with_the_nearest(kind, near):
    with pytest.raises(UnknownNameError, match=f"unknown {kind} '{near}': did you mean "):
        TrainConfig(**{kind: near})
    with pytest.raises(UnknownNameError, match=rf"unknown {kind} \d+: known are "):
        TrainConfig(**{kind: 12345})


@pytest.mark.parametrize("name", ["recipe", "model", "optimizer", "schedule", "dataset"])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises((ConfigError, UnknownNameError), match=r"\['cnn'\]"):
        TrainConfig(**{name: ["cnn"]})


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"^give epochs \(2\) or steps \(3\), not both$"):
        TrainConfig(epochs=2, steps=3)
    with pytest.raises(ConfigError, match="patience needs validation images"):
        TrainConfig(patience=1, validation_fraction=0)


@pytest.mark.parametrize(
    ("optimizer", "setting"), [("adam", "momentum"), ("sgd", "b1"), ("rmsprop", "b2")]
)
def test_a_setting_that_the_optimizer_has_not_is_refused(optimizer, setting):
    with pytest.raises(ConfigError, match=f"optimizer '{optimizer}' takes no setting '{setting}'"):
        TrainConfig(optimizer=optimizer, **{setting: 0.5})


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


def test_the_length_is_counted_in_steps_whichever_unit_was_given():
    assert TrainConfig(steps=7).num_steps(100) == 7
    assert TrainConfig(epochs=2.5).num_steps(100) == 250
    assert TrainConfig(epochs=0.001).num_steps(100) == 1
    assert TrainConfig().num_steps(100) == 1000


def test_replacing_one_unit_of_length_takes_away_the_other():
    config = TrainConfig(epochs=2)
    assert (config.replace(steps=3).epochs, config.replace(steps=3).steps) == (None, 3)
    assert config.replace(steps=3).replace(epochs=1.5) == TrainConfig(epochs=1.5)
    assert config.replace(seed=1) == TrainConfig(epochs=2, seed=1)
    assert config.replace(steps=None) == config
    assert TrainConfig(steps=3).replace(epochs=None) == TrainConfig(steps=3)
    assert config.epochs == 2
    with pytest.raises(ConfigError, match="not both"):
        config.replace(epochs=1, steps=1)


def test_replacing_checks_anew():
    with pytest.raises(ConfigError, match="batch_size must be from 1 to 1,000,000,000, found 0"):
        TrainConfig().replace(batch_size=0)
    with pytest.raises(UnknownNameError, match="'lerning_rate': did you mean 'learning_rate'"):
        TrainConfig().replace(lerning_rate=1)


words = st.text(max_size=8).filter(str.isprintable)
configs = st.builds(
    TrainConfig,
    recipe=words,
    dataset=st.none() | words,
    model=st.sampled_from(sorted(MODELS)),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    steps=st.none() | st.integers(1, 10**9),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-9, 1e3),
    weight_decay=st.none() | st.floats(0, 1),
    ema_decay=st.none() | st.floats(0, 0.99),
    rotate=st.floats(0, 180),
    patience=st.none() | st.integers(1, 9),
    on_nan=st.sampled_from(["stop", "skip"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    deterministic=st.booleans(),
)


@given(config=configs)
def test_json_is_read_back_as_it_was(config):
    text = config.to_json()
    assert set(json.loads(text)) == {field.name for field in dataclasses.fields(config)}
    assert TrainConfig.from_json(text) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "a\x1b[31m"},
        {"dataset": "a\nb"},
        {"dataset": 0},
        {"recipe": None},
        {"deterministic": 1},
        {"deterministic": "no"},
        {"on_nan": "ignore"},
        {"dtype": "float16"},
    ],
)
def test_words_of_another_kind_are_refused(settings):
    with pytest.raises((ConfigError, UnknownNameError), match=next(iter(settings))):
        TrainConfig(**settings)


def test_json_need_not_name_every_setting():
    assert TrainConfig.from_json('{"epochs": 2}') == TrainConfig(epochs=2)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "expected a JSON object of settings: "),
        ('{"epochs": 2', ConfigError, "expected a JSON object of settings: "),
        ("[1]", ConfigError, "expected a JSON object of settings, got list"),
        ("null", ConfigError, "expected a JSON object of settings, got NoneType"),
        ('{"epoch": 2}', UnknownNameError, "unknown setting 'epoch': did you mean 'epochs'?"),
        ('{"epochs": "two"}', ConfigError, "epochs must be positive, at most 1,000,000, found"),
        ('{"model": "vgg"}', UnknownNameError, "unknown model 'vgg': known are accuracy, cnn, "),
        ('{"model": ["cnn"]}', UnknownNameError, "unknown model ['cnn']"),
        ('{"epochs": 1, "steps": 1}', ConfigError, "not both"),
    ],
)
def test_json_that_holds_no_settings_is_refused(text, error, message):
    with pytest.raises(error, match=re.escape(message)):
        TrainConfig.from_json(text)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_configuration_of_its_own_name(name):
    recipe = RECIPES[name]
    config = get_recipe(name)
    assert config is recipe.config
    assert (config.recipe, config.model) == (name, name)
    assert TrainConfig.from_json(config.to_json()) == config
    assert recipe.measured_on in {"test", "validation"}
    assert 90 < recipe.target < 100
    assert recipe.measured_on != "validation" or config.validation_fraction > 0


def test_an_unknown_recipe_comes_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown recipe 'cnn-b': did you mean 'cnn-bn'"):
        get_recipe("cnn-b")
