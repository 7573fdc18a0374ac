"""A batch in pieces gives the same step as the whole batch, wherever the rows are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from training_cases import (
    BATCH,
    Case,
    assert_close,
    device_mesh,
    host_batch,
    take_steps,
    two_batches,
    uneven_batch,
)

from mnistjax.errors import ConfigError
from mnistjax.training import Metrics, make_train_step

SIZES = (1, 3, 4, BATCH - 1, BATCH, 10 * BATCH)  # Some leave a last piece that is partly padding.


@pytest.fixture(scope="module", params=[("cnn", "adam"), ("plain", "momentum")])
def case(request):
    yield Case(*request.param)
    jax.clear_caches()


def in_pieces(case, size, axis_name=None):
    return make_train_step(
        case.quiet_model, case.optimizer(), microbatch_size=size, axis_name=axis_name
    )


@pytest.mark.parametrize("size", SIZES)
def test_pieces_of_any_size_are_the_whole_batch(case, size):
    actual = take_steps(jax.jit(in_pieces(case, size)), case.state, two_batches())
    assert_close(actual, case.expected, case.state)


@pytest.mark.parametrize("check_vma", [True, False])
def test_pieces_are_the_whole_batch_in_shard_map(case, check_vma):
    step = jax.shard_map(
        in_pieces(case, 1, "devices"),
        mesh=device_mesh(),
        in_specs=(P(), P("devices")),
        out_specs=P(),
        check_vma=check_vma,
    )
    assert_close(take_steps(jax.jit(step), case.state, two_batches()), case.expected, case.state)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_pieces_are_the_whole_batch_on_a_mesh(case, kind):
    mesh = device_mesh(kind)
    state = jax.device_put(case.state, NamedSharding(mesh, P()))
    batches = jax.device_put(two_batches(), NamedSharding(mesh, P("devices")))
    step = jax.jit(in_pieces(case, BATCH // 2))
    assert_close(take_steps(step, state, batches), case.expected, case.state)


def test_gradients_are_summed_over_devices_once_for_all_pieces(case):
    mapped = functools.partial(
        jax.shard_map, mesh=device_mesh(), in_specs=(P(), P("devices")), out_specs=P()
    )
    traced = jax.make_jaxpr(mapped(in_pieces(case, 1, "devices")))(case.state, uneven_batch())
    loops = [eqn for eqn in equations(traced.jaxpr) if eqn.primitive.name == "scan"]
    inside = {eqn.primitive.name for loop in loops for eqn in equations(loop.params["jaxpr"].jaxpr)}
    everywhere = {eqn.primitive.name for eqn in equations(traced.jaxpr)}
    assert loops
    assert [name for name in everywhere if name.startswith("psum")]
    assert not [name for name in inside if name.startswith("psum")]


def equations(jaxpr):
    """All operations, those of inner functions and loops too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from equations(getattr(inner, "jaxpr", inner))


def test_a_function_is_given_the_bytes_that_wait_for_the_backward_pass():
    """One dense layer keeps its input, and the softmax and the targets keep ten numbers a row."""
    case, given = Case("plain", "momentum"), []

    def choose(bytes_per_row):
        given.append(bytes_per_row)
        return 4

    actual = take_steps(jax.jit(in_pieces(case, choose)), case.state, two_batches())
    assert_close(actual, case.expected, case.state)
    pixels, classes = 12 * 12, 10
    assert 4 * pixels <= given[0] <= 4 * (pixels + 10 * classes) + case.state_bytes() / BATCH


def test_every_piece_draws_its_own_dropout():
    case = Case("cnn", "momentum")
    row = np.full(BATCH, 5, np.int32)
    step = make_train_step(case.model, case.optimizer(), microbatch_size=BATCH // 2)
    losses = set()
    for part in (slice(0, None, 2), slice(1, None, 2)):  # The rows of each piece.
        batch = host_batch(row)
        batch.mask[:] = False
        batch.mask[part] = True
        losses.add(float(jax.jit(step)(case.state, batch)[1].loss_sum))
    assert len(losses) == 2


def test_batch_normalization_wants_the_whole_batch():
    case = Case("tiny", "momentum")
    with pytest.raises(ValueError, match=r"microbatch_size=None .* found 4"):
        jax.eval_shape(in_pieces(case, 4), case.state, uneven_batch())
    whole = take_steps(jax.jit(in_pieces(case, lambda _: 4)), case.state, two_batches())
    assert_close(whole, case.expected, case.state)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ConfigError), (-3, ConfigError), (2.5, TypeError), ("4", TypeError)]
)
def test_a_size_that_is_no_number_of_rows_is_refused(size, error):
    with pytest.raises(error):
        make_train_step(Case("plain", "momentum").model, optax.sgd(0.1), microbatch_size=size)
    make_train_step(Case("plain", "momentum").model, optax.sgd(0.1), microbatch_size=np.int64(4))


def test_metrics_add_up_along_the_first_axis():
    stacked = Metrics(jnp.array([1.0, 2.0]), jnp.arange(8, dtype=jnp.int32).reshape(2, 2, 2))
    total = stacked.total()
    assert float(total.loss_sum) == 3
    assert total.confusion.tolist() == [[4, 6], [8, 10]]
    assert total.confusion.dtype == jnp.int32
