"""The descriptor table: one step serves every transform, for every model and every optimizer."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnistjax import (
    MODELS,
    OPTIMIZERS,
    Metrics,
    Model,
    count_parameters,
    create_model,
    create_train_state,
    epoch_order,
    make_epoch_fn,
    make_eval_fn,
    make_eval_step,
    make_optimizer,
    make_train_step,
    sequential_order,
    take_batch,
)

CLASSES, BATCH, COUNT, STEPS = 10, 16, 100, 7  # The last batch: 4 images and 12 padded rows.
DEVICES = 4
RATES = {
    "sgd": 0.1,
    "momentum": 0.02,
    "nesterov": 0.02,
    "adagrad": 0.02,
    "adadelta": 2.0,
    "lion": 5e-4,
    "lamb": 1e-3,
    "muon": 0.01,
}
# A larger epsilon than the usual 1e-8, which blows rounding errors of tiny gradients up to steps.
SETTINGS = {name: {"eps": 1e-4} for name in ("adam", "adamw", "lamb", "rmsprop")}
WITHOUT_DROPOUT = {
    "cnn": {"dropouts": (0.0,)},
    "cnn-dropout": {"stage_dropout": 0.0, "dropouts": (0.0, 0.0)},
    "cnn-bn": {"dropouts": (0.0, 0.0, 0.0)},
}
CASES = [("tiny", optimizer) for optimizer in OPTIMIZERS] + [
    (model, optimizer)
    for model in (*MODELS, "plain")
    for optimizer in ("adam", "momentum")
    if model != "tiny"
]


def plain_model() -> Model:
    """A network with no module system behind it."""

    def init(key, images):
        weights = 0.1 * jax.random.normal(key, (images[0].size, CLASSES))
        return {"params": {"weights": weights, "bias": jnp.zeros(CLASSES)}, "batch_stats": {}}

    def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
        params = variables["params"]
        return images.reshape(len(images), -1) @ params["weights"] + params["bias"][None], {}

    return Model(init, apply, "plain")


def build_model(name, **overrides):
    return plain_model() if name == "plain" else create_model(name, **overrides)


@functools.cache
def data():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 12, 1), dtype=np.uint8)
    return images, np.arange(COUNT, dtype=np.int32) % CLASSES


class Case:
    """A model with an optimizer, and the programs that several tests share."""

    def __init__(self, model_name, optimizer_name):
        self.model_name = model_name
        self.optimizer_name = optimizer_name
        self.rate = RATES.get(optimizer_name, 2e-3)
        self.model = build_model(model_name)
        self.order = epoch_order(jax.random.key(1), 0, COUNT, BATCH)
        self.traces = 0
        self.step = self.make_step(self.model)
        self.jitted = jax.jit(self.counted(self.step))
        self.epoch = jax.jit(make_epoch_fn(self.counted(self.step)))

    def counted(self, function):
        def wrapped(*args):
            self.traces += 1
            return function(*args)

        return wrapped

    def optimizer(self):
        settings = SETTINGS.get(self.optimizer_name, {})
        return make_optimizer(self.optimizer_name, self.rate, **settings)

    def make_step(self, model, **options):
        return make_train_step(model, self.optimizer(), **options)

    def create_state(self, key):
        return create_train_state(self.model, self.optimizer(), jnp.zeros((1, 12, 12, 1)), key=key)

    @functools.cached_property
    def state(self):
        return self.create_state(jax.random.key(3))

    def batch(self, index=0):
        return take_batch(*data(), self.order[index])

    def run_epoch(self, state, metrics=None, start=0, stop=STEPS):
        metrics = Metrics.empty(CLASSES) if metrics is None else metrics
        return self.epoch(state, metrics, *data(), self.order, start, stop)

    @functools.cached_property
    def quiet_jitted(self):
        """The step without dropout, whose draws no two ways of dividing a batch share."""
        if self.model_name not in WITHOUT_DROPOUT:
            return self.jitted
        return jax.jit(self.make_step(self.quiet_model))

    @functools.cached_property
    def quiet_model(self):
        return build_model(self.model_name, **WITHOUT_DROPOUT.get(self.model_name, {}))


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """Leaves out LLVM's costly passes: the programs are many, and run for milliseconds."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# Tests of one case run one after the other, so that its compiled programs can go when it is over.
@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    return Case(*request.param)


def leaves(state):
    """The arrays to compare, by name."""
    arrays = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def assert_close(actual, expected, start):
    """Both ended at the same place: to a hundredth of the way there from `start`."""
    (state, metrics), (expected_state, expected_metrics) = actual, expected
    np.testing.assert_array_equal(metrics.confusion, expected_metrics.confusion)
    np.testing.assert_allclose(metrics.loss_sum, expected_metrics.loss_sum, rtol=1e-4)
    named, expected_named, before = leaves(state), leaves(expected_state), leaves(start)
    assert named.keys() == expected_named.keys()
    for name, leaf in named.items():
        error = np.linalg.norm(leaf - expected_named[name])
        assert error <= 0.01 * np.linalg.norm(expected_named[name] - before[name]) + 1e-6, name


def assert_equal(actual, expected):
    chex.assert_trees_all_equal(jax.tree.map(raw, actual), jax.tree.map(raw, expected))


def raw(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def member(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_eager_is_jit(case):
    for index in (0, STEPS - 1):
        batch = case.batch(index)
        assert_close(case.step(case.state, batch), case.jitted(case.state, batch), case.state)


def test_an_epoch_in_one_program_is_the_loop_over_the_jitted_step(case):
    state, metrics = case.state, Metrics.empty(CLASSES)
    for index in range(STEPS):
        state, new = case.jitted(state, case.batch(index))
        metrics = metrics.merge(new)
    assert metrics.count == COUNT
    assert_close(case.run_epoch(case.state), (state, metrics), case.state)


def test_an_epoch_in_stretches_and_from_the_same_seed_is_bit_equal(case):
    whole = case.run_epoch(case.state)
    stretches = case.run_epoch(*case.run_epoch(case.state, stop=3), start=3)
    assert_equal(stretches, whole)
    assert_equal(case.run_epoch(case.create_state(jax.random.key(3))), whole)


def test_a_member_of_a_vmapped_ensemble_is_the_network_alone(case):
    batch = case.batch()

    def create_and_step(key):
        return case.step(case.create_state(key), batch)

    keys = jax.random.split(jax.random.key(6), 2)
    ensemble = jax.jit(jax.vmap(create_and_step))(keys)
    for index, key in enumerate(keys):
        state = case.create_state(key)
        assert_close(member(ensemble, index), case.jitted(state, batch), state)


def device_mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]), ("devices",))


def uneven_batch():
    """Rows of four devices, of which the last has nothing but padding."""
    rows = [3, 14, 15, 92, 65, 35, 89, -1, 79, -1, -1, -1, -1, -1, -1, -1]
    return take_batch(*data(), jnp.array(rows, jnp.int32))


def test_pmap_is_jit_on_one_device(case):
    step = case.make_step(case.quiet_model, axis_name="devices")
    batch = jax.tree.map(lambda leaf: leaf.reshape(DEVICES, -1, *leaf.shape[1:]), uneven_batch())
    state, metrics = jax.pmap(step, axis_name="devices", in_axes=(None, 0))(case.state, batch)
    arrays = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    # On the host: to index an array on several devices would be one more program for them all.
    arrays, metrics = jax.device_get((arrays, metrics))
    expected = case.quiet_jitted(case.state, uneven_batch())
    for index in range(DEVICES):
        copy = case.state.replace(**member(arrays, index))
        assert_close((copy, member(metrics, index)), expected, case.state)


def test_shard_map_is_jit_on_one_device(case):
    # With check_vma, jax itself sums the gradient of a replicated parameter over the devices, and
    # the step would sum it once more.
    sharded = jax.shard_map(
        case.make_step(case.quiet_model, axis_name="devices"),
        mesh=device_mesh(),
        in_specs=(PartitionSpec(), PartitionSpec("devices")),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    expected = case.quiet_jitted(case.state, uneven_batch())
    assert_close(jax.jit(sharded)(case.state, uneven_batch()), expected, case.state)


def test_jit_of_a_batch_sharded_over_a_mesh_is_jit_on_one_device(case):
    mesh = device_mesh()
    state = jax.device_put(case.state, NamedSharding(mesh, PartitionSpec()))
    batch = jax.device_put(uneven_batch(), NamedSharding(mesh, PartitionSpec("devices")))
    assert len(batch.images.sharding.device_set) == DEVICES
    expected = case.jitted(case.state, uneven_batch())
    assert_close(jax.jit(case.step)(state, batch), expected, case.state)


def test_no_second_call_traces_again(case):
    """Neither for a ragged last batch, nor for a stretch of another length, nor for a state that
    another optimizer object made."""
    case.jitted(case.state, case.batch())
    case.run_epoch(case.state)
    traces = case.traces
    assert traces > 0
    state = case.create_state(jax.random.key(9))
    for index in range(STEPS):
        state, _ = case.jitted(state, case.batch(index))
    case.run_epoch(state, start=2, stop=5)
    assert case.traces == traces


def test_no_tracer_leaks(case):
    step = case.make_step(case.model)
    with jax.checking_leaks():
        jax.eval_shape(
            make_epoch_fn(step), case.state, Metrics.empty(CLASSES), *data(), case.order, 0, STEPS
        )


def test_overfits_32_random_images(case):
    order = jnp.tile(sequential_order(32, BATCH), (4, 1))[:STEPS]
    evaluation = jax.jit(make_eval_fn(make_eval_step(case.model)))
    state, few = case.state, tuple(array[:32] for array in data())
    correct = 0
    for _ in range(60):
        for _ in range(5):
            state, _ = case.epoch(state, Metrics.empty(CLASSES), *data(), order, 0, STEPS)
        correct = evaluation(state.variables, *few, sequential_order(32, BATCH)).correct
        if correct == 32:
            break
    assert correct == 32


def test_compiles_once_by_the_compiler_s_own_account(caplog):
    case = Case("tiny", "adam")

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
