"""The descriptor table: one step serves every transform, for every model and every optimizer.

A cheap pair of networks goes through everything by default; all others with `-m full`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from training_cases import (
    BATCH,
    CLASSES,
    COUNT,
    DEVICES,
    STEPS,
    Case,
    assert_close,
    assert_equal,
    data,
    device_mesh,
    member,
    on_host,
    take_steps,
    two_batches,
    uneven_batch,
)

from mnistjax.models import MODELS, count_parameters, create_model
from mnistjax.training import (
    OPTIMIZERS,
    Metrics,
    make_epoch_fn,
    make_eval_fn,
    make_eval_step,
    make_train_step,
)

CHEAP = [("tiny", "adam"), ("plain", "momentum")]
FULL = [("tiny", optimizer) for optimizer in OPTIMIZERS if optimizer != "adam"] + [
    (model, optimizer)
    for model in (*MODELS, "plain")
    for optimizer in ("adam", "momentum")
    if model != "tiny" and (model, optimizer) not in CHEAP
]


def cases(cheap):
    """All pairs of a network and an optimizer, of which `cheap` ones go through a test by default.

    Always in the same order, so that the tests of a pair run together.
    """
    return [
        pytest.param(pair, id="-".join(pair), marks=[] if pair in cheap else pytest.mark.full)
        for pair in CHEAP + FULL
    ]


# Tests of one case run one after the other, and its programs leave memory when it is over.
@pytest.fixture(scope="module", params=cases(CHEAP))
def case(request):
    yield Case(*request.param)
    jax.clear_caches()


def test_an_epoch_in_one_program_is_the_loop_over_the_jitted_step(case):
    state, metrics = case.state, Metrics.empty(CLASSES)
    for index in range(STEPS):
        state, new = case.jitted(state, case.batch(index))
        metrics = jax.tree.map(np.add, metrics, jax.device_get(new))
    assert np.sum(metrics.confusion) == COUNT
    assert_close(case.run_epoch(case.state), (state, metrics), case.state)


def test_an_epoch_in_stretches_and_from_the_same_seed_is_bit_equal(case):
    whole = case.run_epoch(case.state)
    stretches = case.run_epoch(*case.run_epoch(case.state, stop=3), start=3)
    assert_equal(stretches, whole)
    assert_equal(case.run_epoch(case.jitted_create(jax.random.key(3))), whole)


def test_a_member_of_a_vmapped_ensemble_is_the_network_alone(case):
    batch = case.batch()
    keys = jax.random.split(jax.random.key(6), 2)
    create = jax.jit(jax.vmap(case.create_state))
    ensemble = jax.jit(jax.vmap(case.step, in_axes=(0, None)))(create(keys), batch)
    together = on_host(*ensemble)
    for index, key in enumerate(keys):
        state = case.jitted_create(key)
        assert_close(member(together, index), case.jitted(state, batch), state)


def eagerly(case):
    return [take_steps(case.quiet_step(), case.state, two_batches())]


def divided(transform, case):
    """By `pmap` or `vmap`: with a state for each device, as they want it by default."""
    parts = [
        jax.tree.map(lambda leaf: leaf.reshape(DEVICES, -1, *leaf.shape[1:]), batch)
        for batch in two_batches()
    ]
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * DEVICES), case.state)
    step = transform(case.quiet_step("devices"), axis_name="devices")
    together = on_host(*take_steps(step, states, parts))
    return [member(together, index) for index in range(DEVICES)]


def pmapped_with_one_state(case):
    parts = [
        jax.tree.map(lambda leaf: leaf.reshape(DEVICES, -1, *leaf.shape[1:]), batch)
        for batch in two_batches()
    ]
    axes = {"in_axes": (None, 0), "out_axes": None}
    step = jax.pmap(case.quiet_step("devices"), axis_name="devices", **axes)
    return [take_steps(step, case.state, parts)]


def shard_mapped(check_vma, case):
    step = jax.shard_map(
        case.quiet_step("devices"),
        mesh=device_mesh(),
        in_specs=(P(), P("devices")),
        out_specs=P(),
        check_vma=check_vma,
    )
    return [take_steps(jax.jit(step), case.state, two_batches())]


def on_a_mesh(kind, case):
    mesh = device_mesh(kind)
    state = jax.device_put(case.state, NamedSharding(mesh, P()))
    batches = jax.device_put(two_batches(), NamedSharding(mesh, P("devices")))
    assert len(batches[0].images.sharding.device_set) == DEVICES
    return [take_steps(jax.jit(case.quiet_step()), state, batches)]


def on_the_mesh_that_is_set(case):
    with jax.set_mesh(device_mesh(AxisType.Explicit)):
        return on_a_mesh(AxisType.Explicit, case)


TRANSFORMS = {
    "pmap": functools.partial(divided, jax.pmap),
    "vmap": functools.partial(divided, lambda step, **options: jax.jit(jax.vmap(step, **options))),
    "shard_map": functools.partial(shard_mapped, True),
    "explicit-mesh": functools.partial(on_a_mesh, AxisType.Explicit),
}
# What they do to a network is done by one of the above as well, and eagerly each operation on each
# shape is compiled by itself; so by default the network of fewest operations goes through them.
VARIANTS = {
    "eager": eagerly,
    "pmap-one-state": pmapped_with_one_state,
    "shard_map-unchecked": functools.partial(shard_mapped, False),
    "auto-mesh": functools.partial(on_a_mesh, AxisType.Auto),
    "set_mesh": on_the_mesh_that_is_set,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_jit_on_one_device(case, name):
    for actual in TRANSFORMS[name](case):
        assert_close(actual, case.expected, case.state)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("case", cases([("plain", "momentum")]), indirect=True)
def test_every_variant_of_a_transform_is_jit_on_one_device(case, name):
    for actual in VARIANTS[name](case):
        assert_close(actual, case.expected, case.state)


def test_no_second_call_traces_again(case):
    """Neither for a ragged last batch, nor for a stretch of another length, nor for a state that
    another optimizer object made."""
    case.jitted(case.state, case.batch())
    case.run_epoch(case.state)
    traces = case.traces
    assert traces > 0
    state = case.jitted_create(jax.random.key(9))
    for index in range(STEPS):
        state, _ = case.jitted(state, case.batch(index))
    case.run_epoch(state, start=2, stop=5)
    assert case.traces == traces


def test_overfits_32_random_images(case):
    order = np.tile(np.arange(32, dtype=np.int32).reshape(-1, BATCH), (4, 1))[:STEPS]
    evaluation = jax.jit(make_eval_fn(make_eval_step(case.model)))
    state, few = case.state, tuple(array[:32] for array in data())
    correct = 0
    for _ in range(60):
        for _ in range(5):
            state, _ = case.epoch(state, Metrics.empty(CLASSES), *data(), order, 0, STEPS)
        correct = np.trace(evaluation(state.variables, *few, order[:2]).confusion)
        if correct == 32:
            break
    assert correct == 32


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def traced(function, *arguments):
    """What a function returns, without compiling; a tracer that leaks is an error."""
    with jax.checking_leaks():
        return jax.eval_shape(function, *arguments)


@pytest.mark.parametrize("name", [*MODELS, "plain"])
def test_every_model_traces_without_leaks_to_a_state_of_the_same_kind(name):
    """Tracing compiles nothing, and finds what no transform takes: a leaked tracer, an array of
    another dtype, a result that JAX does not know to be the same on all devices."""
    case = Case(name, "momentum")
    state = jax.eval_shape(case.create_state, jax.random.key(0))
    step = jax.shard_map(
        make_train_step(case.model, case.optimizer(), axis_name="devices"),
        mesh=device_mesh(),
        in_specs=(P(), P("devices")),
        out_specs=P(),
    )
    after, _ = traced(step, state, uneven_batch())
    assert shapes(after) == shapes(state)


def test_an_epoch_traces_without_leaks_to_a_state_of_the_same_kind():
    """Of one network, for the loop knows nothing of what the step does."""
    case = Case("plain", "adam")
    state = jax.eval_shape(case.create_state, jax.random.key(0))
    arguments = (Metrics.empty(CLASSES), *data(), case.order, 0, STEPS)
    after, _ = traced(make_epoch_fn(case.step), state, *arguments)
    assert shapes(after) == shapes(state)


def test_compiles_once_by_the_compiler_s_own_account(caplog):
    case = Case("plain", "momentum")

    def compilations():
        caplog.clear()
        with jax.log_compiles():
            for index in (0, STEPS - 1):
                jax.block_until_ready(case.jitted(case.state, case.batch(index)))
            jax.block_until_ready(case.run_epoch(case.state, stop=STEPS - index))
        return [record for record in caplog.records if "Compiling" in record.getMessage()]

    assert compilations()
    assert not compilations()


def test_leaks_would_be_seen():
    leaked = []
    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked"):
        jax.eval_shape(lambda x: leaked.append(x) or x, jnp.zeros(()))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("softmax", 7_850),
        ("mlp", 79_510),
        ("mlp-50-50", 42_310),
        ("cnn", 34_826),
        ("cnn-bn", 905_418),
    ],
)
def test_parameter_counts_are_the_published_ones(name, count):
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    variables = jax.eval_shape(create_model(name).init, jax.random.key(0), images)
    assert count_parameters(variables) == count
