"""The networks by name: their dtypes, their errors, and that equal calls give the same object."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnistjax import create_model
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import CNN, MODELS


def dtypes(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_is_float32_in_64_bit_mode_too(name, dtype):
    model = create_model(name)
    key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, 28, 28, 1), dtype)
    variables = jax.eval_shape(model.init, key, images)

    def loss(params, variables, images):
        logits, batch_stats = model.apply(
            {**variables, "params": params}, images, train=True, key=key
        )
        return logits.sum(), (logits, batch_stats)

    step = jax.grad(loss, has_aux=True)
    outputs = jax.eval_shape(step, variables["params"], variables, images)
    assert dtypes(variables) == dtypes(outputs) == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("cnn", 2, "as large as the kernel, 3x3 pixels, found 2x2"),
        ("cnn", 4, "as large as the kernel, 3x3 pixels, found 1x1"),
        ("cnn", 8, "at least 2x2 pixels to pool, found 1x1"),
        ("cnn-bn", 3, "at least 2x2 pixels to pool, found 1x1"),
        ("tiny", 3, "at least 2x2 pixels to pool, found 1x1"),
    ],
)
def test_images_too_small_for_the_network_are_refused(name, side, message):
    images = jnp.zeros((1, side, side, 1))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(create_model(name).init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("cnn", {"features": (8, 16), "pools": (2,)}, r"\(8, 16\) \(2\), pools=\(2,\) \(1\)"),
        ("cnn", {"kernel_sizes": [3]}, r"kernel_sizes=\(3,\) \(1\)"),
        ("cnn-bn", {"features": [8, 16]}, r"features=\(8, 16\) \(2\), pools=\(2, 2, 1\) \(3\)"),
        ("cnn", {"dense": (64,)}, r"found dropouts=\(0.3,\) \(1\), dense=\(64,\) \(1\)"),
        ("cnn", {"dropouts": ()}, r"dropouts=\(\) \(0\), dense=\(\) \(0\)"),
    ],
)
def test_attributes_whose_lengths_do_not_fit_are_refused(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **overrides)
    if name == "cnn":
        with pytest.raises(ConfigError, match=r"found (features|dropouts)="):
            CNN(**overrides)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'softmax'"):
        create_model("sofmax")
    with pytest.raises(ConfigError, match=r"no attribute 'width': it has .*num_classes"):
        create_model("cnn", width=3)


def test_equal_calls_give_the_same_model():
    first = create_model("cnn", features=[8, 16], num_classes=5)
    assert create_model("cnn", num_classes=5, features=(8, 16)) is first
    assert create_model("cnn", num_classes=6, features=(8, 16)) is not first
    assert create_model("cnn") is create_model("cnn") is not create_model("speed")
    assert create_model("softmax") is not create_model("mlp", features=())


def test_settings_that_are_equal_but_of_other_types_are_told_apart():
    models = {id(create_model("mlp", dropout=value)) for value in (1, 1.0, True)}
    assert len(models) == 3


def test_overrides_that_cannot_be_hashed_still_make_a_model():
    widths = np.array([8, 16])
    assert create_model("cnn", features=widths) is not create_model("cnn", features=widths)
